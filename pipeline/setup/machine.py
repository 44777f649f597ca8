"""This machine: free ports, and whether files can share disk space."""

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.errors import InputError
from pipeline.storage import arrays

_DVC = Path(".dvc")


def check_port(host: str, port: int, setting: str) -> None:
    """Try to listen on a port: a server would report a port in use with a traceback.

    Raises:
        InputError: The port is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose connections have just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{setting}={port} is not available on {host} "
                f"({getattr(error, 'strerror', None) or error}): choose another port"
            ) from error


def shares_files() -> bool:
    """Check if DVC's cache and outputs can share disk space.

    Tries a clone or a hard link; if `cache.type` names neither, nothing is shared.
    """
    types = cache_type()
    if not _DVC.is_dir() or not {"reflink", "hardlink"} & set(types.split(",")):
        return False
    with (
        tempfile.TemporaryDirectory(dir=_DVC) as there,
        tempfile.TemporaryDirectory(dir=".") as here,
    ):
        source, target = Path(there) / "a", Path(here) / "b"
        source.write_bytes(b"a")
        return arrays.share(source, target) != "copied"


def cache_type() -> str:
    """Return DVC's link types, in order of preference."""
    command = [sys.executable, "-m", "dvc", "config", "cache.type"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().replace(" ", "") or "reflink,copy"
