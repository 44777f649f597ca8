"""python -m pipeline COMMAND [section.key=value ...]: the first word says what runs."""

import errno
import io
import os
import signal
import sys
import warnings

from pipeline.errors import InputError, Redacted

_EXPLAINED = {
    errno.ENOSPC: "no space left on the disk; what was there is kept; free some and run again",
    errno.EDQUOT: "the disk quota is used up; what was there is kept; free some and run again",
    errno.EROFS: "cannot write, the file system is read-only; make it writable or run elsewhere",
    errno.EACCES: "not permitted; change the permissions or run as another user",
    errno.EPERM: "not permitted; change the permissions or run as another user",
    errno.EEXIST: "a file is where a folder should be; move it away",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
}


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # Lines show at once in pipes, too, and no name is too strange for a terminal.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
        setattr(sys, name, Redacted(stream))
    # Pillow warns of damaged metadata, but an image is judged by its pixels; joblib of images
    # that were decoded in vain when a stage fails, whose error says enough.
    warnings.filterwarnings("ignore", module=r"(PIL|joblib)\.")
    # So that a stage that is asked to stop can say so to the tracker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from pipeline import runner

        command, *words = arguments or ["--help"]
        if command in ("-h", "--help"):
            print(runner.usage())
            return 0
        return runner.run(command, words)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pipeline" or "tensorflow" in sys.modules:
            raise
        print(
            f"error: {error.name} is not installed for {sys.executable}: use .venv/bin/python, "
            "which `make repro` sets up",
            file=sys.stderr,
        )
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _EXPLAINED:
            raise
        print(f"error: {_EXPLAINED[error.errno]}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
