"""The suite refuses the network, in this process and in those it starts."""

import socket
import subprocess
import sys

import pytest


def test_this_process_refuses() -> None:
    with pytest.raises(OSError, match="the tests refuse the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="the tests refuse the network"):
        socket.getaddrinfo("example.org", 80)


def test_a_child_refuses() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the tests refuse the network" in done.stderr
