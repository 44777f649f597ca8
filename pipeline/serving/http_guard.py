"""Middleware for MLflow's scoring server: limits, cancellation, plain error messages.

ASGI app -> ASGI app. Rows never raise (pyfunc.py), so a failure here means that the request is not
in a form MLflow reads: the client gets a line, the log has the rest.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from pipeline.errors import shortened
from pipeline.serving import ending, rows

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KINDS = (b"application/json", rows.PARQUET)
_JSON = b"application/json"
_POLL_S = 0.2
_RAISED = re.compile(r"""['"]?\b\w+(?:Error|Exception)\(['"]?(.*?)['"]?\)['"]?$""")
_THREADS = 32
_log = logging.getLogger(__name__)


def install(max_bytes: int, max_rows: int, about: str) -> None:
    """Install the guard in the app that MLflow creates right after loading the model.

    MLflow has no setting for middleware; it calls `fastapi.FastAPI()` once.

    Args:
        max_bytes: Maximum size of a request's body.
        max_rows: Maximum number of rows.
        about: Page that describes the model.
    """
    import fastapi

    plain = fastapi.FastAPI

    def guarded(*arguments: Any, **options: Any) -> fastapi.FastAPI:
        fastapi.FastAPI = plain  # type: ignore[misc]
        app = plain(*arguments, **options)
        app.add_middleware(Guard, max_bytes=max_bytes, max_rows=max_rows, about=about)
        return app

    fastapi.FastAPI = guarded  # type: ignore[assignment, misc]


class Guard:
    """Limits requests and cleans error responses.

    Args:
        app: MLflow's app.
        max_bytes: Maximum size of a request's body.
        max_rows: Maximum number of rows.
        about: Page that describes the model.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_rows: int, about: str) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._about = about

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] == "lifespan":
            # Each request waits in a thread; MLflow's few threads would never fill a batch.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
            _end_requests_with_the_server()
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "GET" and scope["path"] in ("/", "/docs"):
            await _send(send, 200, b"text/html; charset=utf-8", self._about.encode())
            return
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind not in _KINDS:
            got = kind.decode(errors="replace") or "none"
            await _refuse(send, 415, f"Content-Type must be application/json, got {got}")
            return
        body = await self._read(receive, headers)
        if body is None:
            limit = f"{self._max_bytes / 1e6:g} MB"
            await _refuse(send, 413, f"a request may have at most {limit}: send fewer rows")
            return
        if scope["method"] != "POST":
            await self._ask(scope, body, receive, send)
            return
        with ending.request() as ended:
            try:
                limits = (self._max_rows, self._max_bytes)
                count = await asyncio.to_thread(rows.check, body, kind, *limits)
            except rows.TooMany as error:
                await _refuse(send, 413, str(error))
                return
            if count == 0:
                await _send(send, 200, _JSON, b'{"predictions": []}')
                return
            watched = asyncio.create_task(_watch(receive, ended))
            try:
                await self._ask(scope, body, _until(ended), send)
            finally:
                watched.cancel()

    async def _read(self, receive: Receive, headers: dict[bytes, bytes]) -> bytes | None:
        """Read the whole body; None as soon as it is known to be too large."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            return None
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_bytes:
                return None
        return bytes(body)

    async def _ask(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let MLflow answer; pass on successes, and clean up errors."""
        begun: list[Message] = []
        answer = bytearray()
        fresh = True

        async def replay() -> Message:
            nonlocal fresh
            if fresh:
                fresh = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                begun.append(message)
            elif begun:
                answer.extend(message.get("body", b""))
            else:
                await send(message)

        try:
            await self._app(scope, replay, hold)
        except Exception:
            _log.exception("a request could not be read")
            await _refuse(send, 400, _FORM)
            return
        if begun:
            status = begun[0]["status"]
            await _refuse(send, 400 if status == 500 else status, _line(bytes(answer)))


_FORM = 'the form of a request is {"dataframe_records": [{"image": "<base64 of an image file>"}]}'


def _line(body: bytes) -> str:
    """Reduce MLflow's message to one line, without the trace and the input."""
    text = body.decode(errors="replace")
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        parsed = None
    message = text
    if isinstance(parsed, dict):
        message = str(parsed.get("message") or parsed.get("detail") or _FORM)
    if message.startswith("Failed to predict data"):  # the input follows
        message = message.rpartition("Error: ")[2]
    return shortened(_RAISED.sub(r"\1", " ".join(message.partition("Input:")[0].split())))


async def _watch(receive: Receive, ended: threading.Event) -> None:
    """End a request whose client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
    ended.set()


def _until(ended: threading.Event) -> Receive:
    """Return what tells MLflow's app that the client has disconnected."""

    async def receive() -> Message:
        while not ended.is_set():
            await asyncio.sleep(_POLL_S)
        return {"type": "http.disconnect"}

    return receive


def _end_requests_with_the_server() -> None:
    """Cancel requests on a signal, before uvicorn waits for them."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def stop(number: int, frame: FrameType | None, before: Any = before) -> None:
            ending.stop_all()
            if callable(before):
                before(number, frame)

        signal.signal(number, stop)


async def _refuse(send: Send, status: int, message: str) -> None:
    await _send(send, status, _JSON, json.dumps({"error": message}).encode())


async def _send(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
