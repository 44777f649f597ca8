"""Whether a port is free, asked before a server is started that would say so in a trace."""

import socket

from pipeline.errors import InputError


def check(host: str, port: int, setting: str) -> None:
    """Try to listen, once.

    Args:
        host: Address to listen on.
        port: Where.
        setting: Name of the port's setting, for the message.

    Raises:
        InputError: It cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As servers do: a port whose connections have just been closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"{setting} must be a port that is free on {host}, got {port}: "
                f"{getattr(error, 'strerror', None) or error}; choose another"
            ) from error
