"""Compare runs in the MLflow UI, on this machine only.

python -m pipeline ui tracking.port=5000
"""

import os
import sys

from pipeline.sections import Tracking
from pipeline.setup import machine
from pipeline.tracking import store, views


def run(tracking: Tracking) -> None:
    """Replace this process with the MLflow UI on the tracking store.

    Raises:
        InputError: The port is taken, or the store does not answer.
    """
    port = tracking.port
    machine.check_port("127.0.0.1", port, "tracking.port")
    client = store.connect(tracking)
    experiment = store.experiment(client, tracking)
    views.save(client, experiment)
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not an argument: a process list would show its password.
        "MLFLOW_BACKEND_STORE_URI": store.address(tracking),
    }
    server = f"http://127.0.0.1:{port}"
    print(f"MLflow UI: {server} (about 15 s to start; stop with Ctrl-C)")
    for key in views.VIEWS:
        print(f"  {key}: {views.address(server, experiment, key)}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, command, environment)
