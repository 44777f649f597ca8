"""Answer over HTTP with the champion, through MLflow's scoring server.

On this machine only, unless `serve.host` says otherwise. There is no password: put it behind a
server that asks for one before others can reach it.

    python -m pipeline serve serve.port=5001
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.networks.trust.judging import COVERAGE, UNKNOWN
from pipeline.release import registry
from pipeline.serving.defaults import DEFAULTS
from pipeline.serving.http_guard import LIMITS
from pipeline.settings import setting
from pipeline.setup import ports
from pipeline.tracking import store

if TYPE_CHECKING:
    from pipeline.config import Config as Everything

SECTIONS = ("serve",)


@dataclass
class Config:
    """Section `serve`."""

    model: str | None = setting(
        None, "Such as models:/NAME/2; null is the champion of promote.name."
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 for all, which lets anybody in."
    )
    port: int = setting(5001, "Port to listen on.", least=1, most=65535)
    workers: int = setting(
        1,
        "Processes. Requests share a forward pass within one, and it uses `threads` processors: "
        "more are for machines with many.",
        least=1,
    )
    timeout_s: int = setting(60, "After which a request is given up.", least=1)
    max_picture_mb: int = setting(LIMITS["max_picture_mb"], "Of a picture's file.", least=1)
    max_request_mb: int = setting(
        LIMITS["max_request_mb"], "Of all of a request, also once it is decompressed.", least=1
    )
    max_rows: int = setting(LIMITS["max_rows"], "Pictures of a request.", least=1)
    unknown: float = setting(
        UNKNOWN,
        "Share of ordinary pictures that may be called unknown, here, in predict and in evaluate: "
        "the larger, the fewer strange ones pass.",
        least=0,
        below=1,
    )
    coverage: float = setting(
        COVERAGE,
        "Share of pictures whose set of labels has the true one, here and in evaluate: needs "
        "prepare.calibration_fraction.",
        above=0,
        below=1,
    )


def run(config: Everything) -> None:
    """Replace this process by `mlflow models serve`.

    Args:
        config: The whole config.

    Raises:
        InputError: There is no such model, or the port is taken.
    """
    settings = config.serve
    ports.check(settings.host, settings.port, "serve.port")
    uri = registry.champion_or(settings.model, config.promote.name, config.tracking)
    limits = {name: getattr(settings, name) for name in DEFAULTS}
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.address(config.tracking),
        "SERVING_MODEL_CONFIG": json.dumps(limits),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # MLflow starts uvicorn by its name.
        "PATH": os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        ),
    }
    address = f"http://{settings.host}:{settings.port}/invocations"
    print(f"{uri}: {address} (about 10 s to start; stop with Ctrl-C)", flush=True)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", uri]
    command += ["--env-manager", "local", "--host", settings.host, "--port", str(settings.port)]
    command += ["--workers", str(settings.workers), "--timeout", str(settings.timeout_s)]
    os.execve(sys.executable, command, environment)
