"""A real PostgreSQL server for tests that need one."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Server:
    """A PostgreSQL server on this machine, with one database, in its own folder."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._folder = programs, folder
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # which the server refuses to run as
            shutil.chown(folder, "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "optuna")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "optuna", "sweeps")
        self.url = f"postgresql+psycopg://optuna:secret@127.0.0.1:{self._port}/sweeps"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder}"
        self._control("-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop it as a crash would."""
        self._control("-m", "immediate", "stop")

    def _control(self, *options: str) -> None:
        self._call("pg_ctl", "-D", str(self._folder / "data"), *options)

    def _call(self, program: str, *options: str) -> None:
        command = [*self._as_user, str(self._programs / program), *options]
        subprocess.run(command, check=True, cwd=self._folder, stdout=subprocess.DEVNULL)


@pytest.fixture
def server() -> Iterator[Server]:
    """A running server; Debian's package is installed if possible."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "--no-install-recommends", "postgresql"]):
            subprocess.run(["apt-get", "-qq", "-y", *command], check=True)
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    # Not pytest's folder: the server's user may not enter that one.
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    running = Server(programs[-1], folder)
    try:
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder)
