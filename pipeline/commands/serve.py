"""The champion over HTTP: MLflow's scoring server, on this machine only unless told otherwise."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import ports, registry, tracking_store
from pipeline.errors import InputError
from pipeline.http_guard import LIMITS


@dataclass
class Config:
    """Section `serve`.

    Attributes:
        model: Such as models:/NAME/2; null is the champion of `promote.name`.
        host: Address to listen on; 0.0.0.0 for all, which lets anybody in.
        port: Where.
        workers: Processes. Requests share a forward pass within one, and it uses `threads`
            processors: more are for machines with many.
        timeout_s: After which a request is given up.
        max_picture_mb: Of a picture's file.
        max_request_mb: Of all of a request.
    """

    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 5001
    workers: int = 1
    timeout_s: int = 60
    max_picture_mb: int = LIMITS["max_picture_mb"]
    max_request_mb: int = LIMITS["max_request_mb"]

    def check(self) -> None:
        """Check what types cannot say.

        Raises:
            InputError: A value out of its range.
        """
        for name in ("workers", "timeout_s", "max_picture_mb", "max_request_mb"):
            if getattr(self, name) < 1:
                raise InputError(f"serve.{name} must be at least 1, got {getattr(self, name)}")


def serve(config: Any) -> None:
    """Replace this process by `mlflow models serve`.

    Args:
        config: The whole config.

    Raises:
        InputError: There is no such model, or the port is taken.
    """
    settings: Config = config.serve
    settings.check()
    ports.check(settings.host, settings.port, "serve.port")
    uri = registry.champion_or(settings.model, config.promote.name, config.tracking)
    limits = {name: getattr(settings, name) for name in LIMITS}
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_store.store(config.tracking),
        "SERVING_MODEL_CONFIG": json.dumps(limits),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # MLflow starts uvicorn by its name.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    address = f"http://{settings.host}:{settings.port}/invocations"
    print(f"{uri}: {address} (about 10 s to start; stop with Ctrl-C)", flush=True)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri]
    command += ["--env-manager", "local", "--host", settings.host, "--port", str(settings.port)]
    command += ["--workers", str(settings.workers), "--timeout", str(settings.timeout_s)]
    os.execve(sys.executable, command, environment)
