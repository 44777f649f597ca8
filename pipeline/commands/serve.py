"""Serve the champion over HTTP, with MLflow's scoring server.

On this machine only, unless `serve.host` says otherwise. There is no authentication: put a proxy
in front of it before others can reach it.

    python -m pipeline serve serve.port=5001
"""

import json
import os
import sys
from pathlib import Path

from pipeline.release import registry
from pipeline.sections import Promote, Serve, Tracking
from pipeline.serving.defaults import DEFAULTS
from pipeline.setup import machine
from pipeline.tracking import store

SECTIONS = ("serve",)


def run(serve: Serve, promote: Promote, tracking: Tracking) -> None:
    """Replace this process with `mlflow models serve`.

    Raises:
        InputError: There is no such model, or the port is taken.
    """
    machine.check_port(serve.host, serve.port, "serve.port")
    uri, file = registry.champion_or(serve.model, promote.name, tracking)
    limits = {name: getattr(serve, name) for name in DEFAULTS}
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.address(tracking),
        "SERVING_MODEL_CONFIG": json.dumps(limits),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # MLflow starts uvicorn by its name.
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        ),
    }
    address = f"http://{serve.host}:{serve.port}/invocations"
    print(f"{uri}: {address} (about 10 s to start; stop with Ctrl-C)", flush=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        str(file.parents[1]),
    ]
    command += ["--env-manager", "local", "--host", serve.host, "--port", str(serve.port)]
    command += ["--workers", str(serve.workers), "--timeout", str(serve.timeout_s)]
    os.execve(sys.executable, command, environment)
