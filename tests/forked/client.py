"""Replaces `python` and `dvc` on the PATH of a test's commands: server.py runs them."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

SOCKET = os.environ["FORK_SERVER"]
PROGRAMS = os.environ["FORK_PROGRAMS"]
"""The folder of the real ones."""


def main() -> int:
    name = Path(sys.argv[0]).name
    words = sys.argv[1:]
    if name == "python":
        if words[:2] != ["-m", "pipeline"]:
            program = str(Path(PROGRAMS, name))
            os.execv(program, [program, *words])
        name, words = "pipeline", words[2:]
    requested = {
        "program": name,
        "words": words,
        "cwd": str(Path.cwd()),
        "environ": dict(os.environ),
    }
    request = json.dumps(requested).encode()
    with socket.socket(socket.AF_UNIX) as server:
        while True:  # it may still be importing
            try:
                server.connect(SOCKET)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if not Path(SOCKET).parent.is_dir():
                    raise
                time.sleep(0.1)
        server.sendall(b"%08d" % len(request))
        socket.send_fds(server, [request], [0, 1, 2])
        answer = server.makefile()
        child = int(answer.readline())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: os.kill(child, number))
        code = answer.readline()
        answer.read()  # the end comes when the process is gone
    return int(code) if code else 128 + signal.SIGKILL


if __name__ == "__main__":
    sys.exit(main())
