"""Refuse every connection that leaves this machine."""

import re
import sys
from pathlib import Path
from typing import Any

_LOCAL = ("127.", "::1", "localhost", "0.0.0.0", "::ffff:127.")


def _own() -> set[str]:
    """This machine's addresses, by which the nodes of a cluster on it know each other."""
    routes = Path("/proc/net/fib_trie")
    text = routes.read_text() if routes.exists() else ""
    return set(re.findall(r"([\d.]+)\n\s+/32 host LOCAL", text))


def refuse_network() -> None:
    """Install the guard, which cannot be removed."""
    own = _own()
    sys.addaudithook(lambda event, arguments: _guard(event, arguments, own))


def _guard(event: str, arguments: tuple[Any, ...], own: set[str]) -> None:
    if event == "socket.connect":
        address = arguments[1]
    elif event == "socket.getaddrinfo":
        address = arguments[:1]
    else:
        return
    if isinstance(address, tuple) and isinstance(address[0], (str, bytes)):
        host = address[0].decode() if isinstance(address[0], bytes) else address[0]
        if host and host not in own and not host.startswith(_LOCAL):
            raise OSError(f"the tests refuse the network: {host}")
