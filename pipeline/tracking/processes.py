"""Whose work it is, and whether that process is still there."""

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import psutil

Identity = dict[str, str]

_PROC = Path("/proc")
_TICKS = " ticks"
_WHOLE_MACHINE = "pid:[4026531836]"
"""The PID namespace that Linux itself starts in: not a container's."""


def identity() -> Identity:
    """This process: its machine, its number, and when it was started (numbers come again).

    Containers may share a host name, and each counts its processes from 1: the PID namespace and
    the boot of the machine tell them apart.
    """
    return {
        "process.host": socket.gethostname(),
        "process.space": _space(),
        "process.boot": _boot(),
        "process.pid": str(os.getpid()),
        "process.started": _started(os.getpid()),
    }


def here(owner: Mapping[str, str]) -> bool:
    """Whether that is, or was, a process of this machine and PID namespace."""
    if owner["process.host"] != socket.gethostname():
        return False
    if owner["process.space"] != _space():
        return False
    # A container's namespace may come again elsewhere; a machine's own, after it was restarted.
    return owner["process.boot"] == _boot() or _space().endswith(_WHOLE_MACHINE)


def dead(owner: Mapping[str, str]) -> bool:
    """Whether a process of this machine is gone; False for those of other machines."""
    if not here(owner):
        return False
    if owner["process.boot"] != _boot():
        return True
    pid, started = int(owner["process.pid"]), owner["process.started"]
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and nobody has asked how
            return True
        if started.endswith(_TICKS):
            return started != _started(pid)
        return abs(process.create_time() - float(started)) >= 1
    except psutil.NoSuchProcess:
        return True


def _started(pid: int) -> str:
    """When a process was started: since the boot where that is known, or else by the clock.

    A clock may be set back.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return str(psutil.Process(pid).create_time())
    # After the name, which is in brackets and may hold anything: the 20th is the start (proc(5)).
    return stat.rpartition(")")[2].split()[19] + _TICKS


@cache
def _space() -> str:
    """The machine and the PID namespace in which numbers of processes mean something."""
    machine = Path("/etc/machine-id")
    number = machine.read_text(encoding="utf-8").strip() if machine.exists() else ""
    try:
        return f"{number} {(_PROC / 'self' / 'ns' / 'pid').readlink()}".strip()
    except OSError:
        return number


@cache
def _boot() -> str:
    """Which start of the machine this is; empty where it does not tell."""
    path = _PROC / "sys" / "kernel" / "random" / "boot_id"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
