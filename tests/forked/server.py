"""Run `python -m pipeline` and `dvc` without importing TensorFlow again for each.

A process that has imported much forks for every command, before TensorFlow has started a
thread, and imports for the next ones what a command still had to import. For commands whose
process is not the point of a test: the code that runs is that of this project, also in a copy
of it.

    python server.py SOCKET
"""

import atexit
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

_open: list[socket.socket] = []


def serve(path: str) -> None:
    """Answer clients, each in a process of its own."""
    import dvc.cli
    import keras  # noqa: F401
    import mlflow  # noqa: F401
    import tensorflow  # noqa: F401

    import pipeline.__main__
    from pipeline import runner
    from pipeline.networks import openvino

    openvino.library()
    runner.usage()  # imports every stage and command
    mains = {"pipeline": pipeline.__main__.main, "dvc": dvc.cli.main}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a client's process
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            client, _ = listener.accept()
            _learn(Path(path).parent)
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                loaded = set(sys.modules)
                code = _run(client, mains)
                _teach(Path(path).parent, set(sys.modules) - loaded)
                atexit._run_exitfuncs()  # all that an end needs: taking TensorFlow apart takes 2 s
                os._exit(code & 255)
            client.close()


def _teach(folder: Path, names: set[str]) -> None:
    """Report which libraries a command had to import."""
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in names}
    learned = [name for name, file in files.items() if file.startswith(tuple(libraries))]
    aside = folder / f"{os.getpid()}.partial"
    aside.write_text("\n".join(sorted(learned)))
    aside.rename(folder / f"{os.getpid()}.modules")


def _learn(folder: Path) -> None:
    for file in folder.glob("*.modules"):
        for name in file.read_text().split():
            with contextlib.suppress(ImportError):  # of a module that needs another first
                importlib.import_module(name)
        file.unlink()
    assert threading.active_count() == 1, threading.enumerate()


def _run(client: socket.socket, mains: dict[str, Callable[[list[str]], int | None]]) -> int:
    """Run one command with the client's files, folder and environment."""
    size = int(client.recv(8))
    request, files, *_ = socket.recv_fds(client, size, 3)
    while len(request) < size:
        request += client.recv(size - len(request))
    requested = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(requested["cwd"])
    os.environ.clear()
    os.environ.update(requested["environ"])
    sys.argv = [requested["program"], *requested["words"]]
    sys.executable = str(Path(os.environ["FORK_SERVER"]).with_name("python"))
    client.sendall(f"{os.getpid()}\n".encode())
    try:
        code = int(mains[requested["program"]](requested["words"]) or 0)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    client.sendall(f"{code}\n".encode())
    _open.append(client)  # until this process has ended
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
