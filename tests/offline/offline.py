"""Refuse every connection that leaves this machine."""

import sys
from typing import Any

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def refuse_network() -> None:
    """Install the guard; it cannot be taken out again."""
    sys.addaudithook(_guard)


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:1]
    else:
        return
    if isinstance(address, tuple) and isinstance(address[0], (str, bytes)):
        host = address[0].decode() if isinstance(address[0], bytes) else address[0]
        if host and not host.startswith(_LOCAL):
            raise OSError(f"the tests refuse the network: {host}")
