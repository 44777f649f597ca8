"""Serve the champion over HTTP: a page for people, predictions for programs.

On this machine only, unless `serve.host` says otherwise; then set a token.

    python -m pipeline serve serve.port=5001 'serve.token=${oc.env:SERVE_TOKEN}'
"""

import os
import tempfile

from pipeline.networks import model_file
from pipeline.release import registry
from pipeline.sections import Promote, Serve, Tracking
from pipeline.serving.settings import METRICS, Settings
from pipeline.setup import machine
from pipeline.storage.outputs import ROOT

SECTIONS = ("serve",)


def run(serve: Serve, promote: Promote, tracking: Tracking) -> None:
    """Serve until the process is stopped; running requests are finished.

    Raises:
        InputError: There is no such model, or the port is taken.
    """
    machine.check_port(serve.host, serve.port, "serve.port")
    model = registry.served(serve.model, promote.name, tracking)
    model_file.insist_on_trust(model.file, model_file.read_card(model.file), model.trusted)
    Settings(
        model=str(model.file),
        trusted=model.trusted,
        about=model.about,
        prepared=str(ROOT / "prepare"),
        unknown=serve.unknown,
        coverage=serve.coverage,
        max_request_mb=serve.max_request_mb,
        timeout_s=serve.timeout_s,
        token=serve.token,
    ).store()
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    print(f"{model.about['model']}: http://{host}:{serve.port} (stop with Ctrl-C)", flush=True)
    with tempfile.TemporaryDirectory() as shared:
        if serve.workers > 1:
            os.environ[METRICS] = shared
        import uvicorn

        uvicorn.run(
            "pipeline.serving.app:create",
            factory=True,
            host=serve.host,
            port=serve.port,
            workers=serve.workers,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=serve.timeout_s,
        )
