"""The end of a request: its work asks for it between two steps, and stops.

A thread cannot be stopped from outside. Without this, the work of a request that was given up
would go on, and a server that is told to stop would wait for it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_running: set[threading.Event] = set()
_current: ContextVar[threading.Event | None] = ContextVar("ended", default=None)


class Ended(Exception):
    """The request that this work is for has ended."""


@contextmanager
def request() -> Iterator[threading.Event]:
    """A request, from its first byte to its answer; yields what is set when it ends.

    Threads that `asyncio.to_thread` starts inside it belong to it.
    """
    ended = threading.Event()
    _running.add(ended)
    token = _current.set(ended)
    try:
        yield ended
    finally:
        ended.set()
        _current.reset(token)
        _running.discard(ended)


def stop_all() -> None:
    """End all requests: the server stops."""
    for ended in list(_running):
        ended.set()


def current() -> threading.Event:
    """What is set when the request ends that this work is for; never, if there is none."""
    return _current.get() or threading.Event()
