"""Serve the champion over HTTP: a page for people, predictions for programs.

On this machine only, unless `serve.host` says otherwise; then set a token.

    python -m pipeline serve serve.port=5001 'serve.token=${oc.env:SERVE_TOKEN}'
"""

import os
import tempfile

from pipeline.config import Config
from pipeline.networks import model_file
from pipeline.release import registry
from pipeline.serving.settings import FROM_SECTION, METRICS, Settings
from pipeline.setup import machine
from pipeline.storage.outputs import ROOT

_LOCAL = ("127.0.0.1", "::1", "localhost")


def run(config: Config) -> None:
    """Serve until the process is stopped; running requests are finished.

    Raises:
        InputError: There is no such model, or the port is taken.
    """
    serve = config.serve
    machine.check_port(serve.host, serve.port, "serve.port")
    model = serve.model or registry.champion_uri(config.promote.name)
    file, trusted = registry.model_file(model, lambda: config), registry.is_own(model)
    model_file.insist_on_trust(file, model_file.read_card(file), trusted)
    Settings(
        model=str(file),
        trusted=trusted,
        about={"model": model, **registry.facts(model, config.tracking)},
        prepared=str(ROOT / "prepare"),
        **{name: getattr(serve, name) for name in FROM_SECTION},
    ).store()
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    print(f"{model}: http://{host}:{serve.port} (stop with Ctrl-C)", flush=True)
    if serve.token is None and serve.host not in _LOCAL:
        print("warning: everybody who can reach this server can use it: set serve.token")
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
