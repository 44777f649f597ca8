"""Cancel the work of a request, which checks for the end between two steps.

A thread cannot be stopped from outside. Without this, work would continue after its request was
given up, and a server that stops would wait for it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_running: set[threading.Event] = set()
_current: ContextVar[threading.Event | None] = ContextVar("ended", default=None)


class Ended(Exception):
    """The request of this work has ended."""


@contextmanager
def request() -> Iterator[threading.Event]:
    """Track a request from its first byte to its response; yields an event set at its end.

    Threads started by `asyncio.to_thread` inside it belong to it.
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
    """End all requests, because the server stops."""
    for ended in list(_running):
        ended.set()


def current() -> threading.Event:
    """Return the event that is set when the current request ends; never set without a request."""
    return _current.get() or threading.Event()
