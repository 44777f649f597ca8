"""Identify processes, and check if they still run."""

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import psutil

_PROC = Path("/proc")
_TICKS = " ticks"
_WHOLE_MACHINE = "pid:[4026531836]"
"""The initial PID namespace of Linux, as opposed to a container's."""


def identity() -> dict[str, str]:
    """Identify this process: machine, PID and start time, as PIDs are reused.

    Containers may share a host name, and each has its own PIDs: the PID namespace and the machine's
    boot ID distinguish them.
    """
    return {
        "process.host": socket.gethostname(),
        "process.space": _space(),
        "process.boot": _boot(),
        "process.pid": str(os.getpid()),
        "process.started": _started(os.getpid()),
    }


def here(owner: Mapping[str, str]) -> bool:
    """Check if a process belongs, or belonged, to this machine and PID namespace."""
    if owner["process.host"] != socket.gethostname():
        return False
    if owner["process.space"] != _space():
        return False
    # A container's namespace may be reused elsewhere; a machine's own survives a restart.
    return owner["process.boot"] == _boot() or _space().endswith(_WHOLE_MACHINE)


def dead(owner: Mapping[str, str]) -> bool:
    """Check if a process of this machine is gone; False for processes of other machines."""
    if not here(owner):
        return False
    if owner["process.boot"] != _boot():
        return True
    pid, started = int(owner["process.pid"]), owner["process.started"]
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, but not yet waited for
            return True
        if started.endswith(_TICKS):
            return started != _started(pid)
        return abs(process.create_time() - float(started)) >= 1
    except psutil.NoSuchProcess:
        return True


def _started(pid: int) -> str:
    """Return the start time of a process: since boot if known, else by the clock.

    The clock may be set back.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return str(psutil.Process(pid).create_time())
    # After the name, which is in brackets and may contain anything, the 20th is the start
    # (proc(5)).
    return stat.rpartition(")")[2].split()[19] + _TICKS


@cache
def _space() -> str:
    """Identify the machine and the PID namespace."""
    machine = Path("/etc/machine-id")
    number = machine.read_text(encoding="utf-8").strip() if machine.exists() else ""
    try:
        return f"{number} {(_PROC / 'self' / 'ns' / 'pid').readlink()}".strip()
    except OSError:
        return number


@cache
def _boot() -> str:
    """Identify the machine's boot; empty if unknown."""
    path = _PROC / "sys" / "kernel" / "random" / "boot_id"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
