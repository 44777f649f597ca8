"""The suite refuses the network, in this process and in those it starts."""

import os
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


def test_mlflow_sends_no_usage_data() -> None:
    """MLflow itself does not send any where these variables name a CI service."""
    code = "import pipeline, mlflow.telemetry as t; assert t.get_telemetry_client() is None"
    services = ("CI", "PYTEST", "GITHUB", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    plain = {k: v for k, v in os.environ.items() if not any(name in k for name in services)}
    subprocess.run([sys.executable, "-c", code], env=plain, check=True)
