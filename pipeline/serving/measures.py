"""Metrics of the server for Prometheus, summed over its workers."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Histogram, generate_latest
from prometheus_client import CollectorRegistry as Registry

from pipeline.serving.settings import METRICS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

KIND = CONTENT_TYPE_LATEST
_PATHS = ("/predict", "/explain", "/invocations")
_SECONDS = Histogram(
    "classifier_request_seconds",
    "Seconds from a request's first byte to its answer.",
    ["path", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_IMAGES = Counter("classifier_images", "Images by outcome.", ["outcome"])


def count(rows: Sequence[dict[str, Any]]) -> None:
    """Count images that were classified, are unknown, or could not be read."""
    for row in rows:
        outcome = "error" if row["error"] else "known" if row["known"] else "unknown"
        _IMAGES.labels(outcome).inc()


def text() -> bytes:
    """Return all numbers in Prometheus' text format."""
    registry = REGISTRY
    if METRICS in os.environ:
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = Registry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class Measured:
    """Middleware that measures requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope.get("path") not in _PATHS:
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), "none"

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            _SECONDS.labels(scope["path"], status).observe(time.perf_counter() - began)
