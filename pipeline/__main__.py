"""Entry point: python -m pipeline COMMAND [section.key=value ...]."""

import errno
import io
import os
import signal
import sys
import warnings

import pipeline
from pipeline.errors import InputError, Redacted

_EXPLAINED = {
    errno.ENOSPC: "no space left on the disk; earlier results are kept; free some and run again",
    errno.EDQUOT: "the disk quota is used up; earlier results are kept; free some and run again",
    errno.EROFS: "the file system is read-only; make it writable or run elsewhere",
    errno.EACCES: "not permitted; change the permissions or run as another user",
    errno.EPERM: "not permitted; change the permissions or run as another user",
    errno.EEXIST: "a file is where a folder should be; move it away",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
}


def main(arguments: list[str]) -> int:
    """Run a command and return the exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # Lines appear in pipes at once, and any file name can be printed on any terminal.
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
        setattr(sys, name, Redacted(stream))
    # Pillow warns about damaged metadata, but only pixels matter here; joblib warns about images
    # decoded for nothing when a stage fails, and the stage's error says enough.
    warnings.filterwarnings("ignore", module=r"(PIL|joblib)\.")
    # A stage that is asked to stop can then report it to the tracker.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        from pipeline import runner

        command, *words = arguments or ["--help"]
        if command in ("-h", "--help"):
            print(runner.usage())
            return 0
        if command == "--version":
            print(f"pipeline {pipeline.__version__}")
            return 0
        return runner.run(command, words)
    except InputError as error:
        _print_error(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "pipeline" or "tensorflow" in sys.modules:
            raise
        _print_error(
            f"{error.name} is not installed for {sys.executable}: use .venv/bin/python, "
            "which `make repro` sets up"
        )
    except BrokenPipeError:  # the reader of our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _EXPLAINED:
            raise
        _print_error(f"{_EXPLAINED[error.errno]}: {error}")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 1


def _print_error(text: str) -> None:
    coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print("\x1b[1;31merror:\x1b[0m" if coloured else "error:", text, file=sys.stderr)


def entry() -> int:
    """Run the words of the command line; the console script `pipeline`."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(entry())
