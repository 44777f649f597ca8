"""Whose work it is, and whether that process is still there."""

import os
import socket
from collections.abc import Mapping

import psutil

Identity = dict[str, str]


def identity() -> Identity:
    """This process: its host, its number, and when it was started (numbers come again)."""
    return {
        "process.host": socket.gethostname(),
        "process.pid": str(os.getpid()),
        "process.started": str(psutil.Process().create_time()),
    }


def here(owner: Mapping[str, str]) -> bool:
    """Whether that is, or was, a process of this machine."""
    return owner["process.host"] == socket.gethostname()


def dead(owner: Mapping[str, str]) -> bool:
    """Whether a process of this machine is gone; False for those of other machines."""
    if not here(owner):
        return False
    try:
        process = psutil.Process(int(owner["process.pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and nobody has asked how
            return True
        return abs(process.create_time() - float(owner["process.started"])) >= 1
    except psutil.NoSuchProcess:
        return True
