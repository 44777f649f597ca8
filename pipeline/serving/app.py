"""The HTTP server: a page for people, predictions for programs.

model file + settings -> a FastAPI app, in every worker of uvicorn. Requests share forward passes,
and answers are those of evaluate.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect

import pipeline
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.serving import bodies, measures
from pipeline.serving.batches import Batches
from pipeline.serving.bodies import BadRequest
from pipeline.serving.classifier import Classifier
from pipeline.serving.content import as_png
from pipeline.serving.pyfunc import CHUNK, Service, stacked
from pipeline.serving.settings import MAX_IMAGE_MB, MAX_ROWS, Settings

_EXAMPLES = 10
_AT_ONCE = 8
_INLINE = 100_000
_PAGE = Path(__file__).with_name("page.html")
HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:",
    "X-Content-Type-Options": "nosniff",
}
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
T = TypeVar("T")


def create() -> FastAPI:
    """Create the app; uvicorn calls this in every worker."""
    settings = Settings.stored()
    trust = settings.unknown, settings.coverage
    api = _Api(settings, Classifier(Path(settings.model), settings.trusted, *trust))
    app = FastAPI(
        title="Image classifier",
        description=f"Classifies images: {bodies.FORMS}.",
        version=pipeline.__version__,
        lifespan=api.lifespan,
        docs_url=None,  # these pages load their parts from the internet
        redoc_url=None,
        exception_handlers=dict.fromkeys(_ERRORS, _error),
    )
    app.add_middleware(measures.Measured)
    routes = APIRouter(dependencies=[Depends(api.authorized)])
    routes.post("/predict", openapi_extra=bodies.IMAGES)(api.predict)
    routes.post("/explain", openapi_extra=bodies.IMAGES)(api.explain)
    routes.post("/invocations", openapi_extra=bodies.MLFLOW)(api.invocations)
    routes.get("/version")(api.version)
    routes.get("/metrics")(api.metrics)
    routes.get("/examples/{number}")(api.example)
    app.include_router(routes)
    for path in ("/health", "/ready", "/ping"):
        app.get(path)(_healthy)
    for path in ("/", "/docs"):
        app.get(path, include_in_schema=False)(_page)
    return app


class _Api:
    """The routes; docstrings are their descriptions in /openapi.json."""

    def __init__(self, settings: Settings, classifier: Classifier) -> None:
        self._settings = settings
        self._max_bytes = settings.max_request_mb * 1_000_000
        self._service = Service(classifier, MAX_IMAGE_MB * 1_000_000)
        self._examples = _examples(classifier, Path(settings.prepared))
        self._explaining = asyncio.Lock()
        self._batches: Batches

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start the thread of forward passes, which belongs to one event loop."""
        self._batches = Batches(self._service.answers)
        yield

    async def authorized(self, given: _Credentials) -> None:
        """Refuse a request without the token, in a time that does not depend on it."""
        if self._settings.token is None:
            return
        actual = given.credentials if given else ""
        if not hmac.compare_digest(actual.encode(), self._settings.token.encode()):
            message = "this server needs the header Authorization: Bearer TOKEN, with its token"
            raise HTTPException(401, message, headers={"WWW-Authenticate": "Bearer"})

    async def predict(self, request: Request) -> Response:
        """Classify images: multipart files, an image file as the body, or JSON with base64."""
        values = await self._images(request)
        return await self._limited(request, self._classified(values))

    async def invocations(self, request: Request) -> Response:
        """Classify images in MLflow's scoring protocol: JSON, csv or Parquet."""
        kind = _kind(request)
        if kind not in bodies.KINDS:
            wanted = ", ".join(bodies.KINDS)
            raise BadRequest(f"Content-Type must be {wanted}, got {kind or 'none'}", 415)
        body = await self._body(request)
        limits = MAX_ROWS, self._max_bytes

        async def work() -> Response:
            values = await _parsed(body, lambda: bodies.of_mlflow(body, kind, *limits))
            return await self._classified(values)

        return await self._limited(request, work())

    async def explain(self, request: Request) -> Response:
        """Return the image with a heat map over the regions that speak for the prediction."""
        value = (await self._images(request))[0]

        async def work() -> Response:
            decoded = await _in_thread(self._service.decoders, self._service.decode, value)
            if isinstance(decoded, str):
                raise BadRequest(decoded, 422)
            async with self._explaining:
                heated = await asyncio.to_thread(self._service.classifier.explain, decoded)
            return Response(as_png(heated), media_type="image/png")

        try:
            return await self._limited(request, work())
        except InputError as error:
            raise BadRequest(str(error), 422) from error

    async def version(self) -> dict[str, Any]:
        """Describe the model and the server's limits."""
        card = self._service.classifier.card
        return {
            **self._settings.about,
            "pipeline": pipeline.__version__,
            "answers": card.predicts.described(card.classes),
            "classes": card.classes,
            "image_size": card.image_size,
            "prediction_sets": self._service.classifier.gives_sets,
            "unknown": self._settings.unknown,
            "max_images": MAX_ROWS,
            "max_image_mb": MAX_IMAGE_MB,
            "max_request_mb": self._settings.max_request_mb,
            "examples": len(self._examples),
        }

    async def metrics(self) -> Response:
        """Count requests, images and seconds, as text for Prometheus."""
        return Response(measures.text(), media_type=measures.KIND)

    async def example(self, number: int) -> Response:
        """Return an image of the test split, as the network sees it."""
        if not 0 <= number < len(self._examples):
            raise HTTPException(404, f"there are {len(self._examples)} examples")
        return Response(self._examples[number], media_type="image/png")

    async def _images(self, request: Request) -> list[Any]:
        """Read the images of a request to /predict."""
        kind, body = _kind(request), await self._body(request)
        if kind == "multipart/form-data":
            values: list[Any] = await bodies.of_multipart(request.headers, body, MAX_ROWS)
        elif kind == "application/json":
            values = await _parsed(body, lambda: bodies.of_json(body))
        else:
            values = [body] if body else []
        if not values:
            raise BadRequest(f"the request has no image: send {bodies.FORMS}")
        return values

    async def _body(self, request: Request) -> bytes:
        """Read a body; stop as soon as it is known to be too large or too slow."""
        limit = f"a request may have at most {self._max_bytes / 1e6:g} MB: send fewer images"
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise BadRequest(limit, 413)
        body = bytearray()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                async for part in request.stream():
                    body += part
                    if len(body) > self._max_bytes:
                        raise BadRequest(limit, 413)
        except TimeoutError as error:
            message = f"the request did not arrive in {self._settings.timeout_s} s"
            raise BadRequest(message, 408) from error
        return bytes(body)

    async def _classified(self, values: Sequence[Any]) -> Response:
        """Classify values, a few at a time: another request waits for some images, not for all."""
        if len(values) > MAX_ROWS:
            raise bodies.too_many(len(values), MAX_ROWS)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            parts = [chunk[place : place + _AT_ONCE] for place in range(0, len(chunk), _AT_ONCE)]
            decoded = [
                item
                for part in await asyncio.gather(
                    *(_in_thread(self._service.decoders, self._decode, part) for part in parts)
                )
                for item in part
            ]
            images = stacked(decoded)
            answers = None if images is None else await self._batches(images)
            rows += self._service.rows(decoded, answers)
        measures.count(rows)
        return Response(json.dumps({"predictions": rows}), media_type="application/json")

    def _decode(self, values: Sequence[Any]) -> list[Any]:
        return [self._service.decode(value) for value in values]

    async def _limited(self, request: Request, work: Awaitable[Response]) -> Response:
        """Wait for the response; give the work up if the client leaves or the time is over."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_disconnected(request))
        limit = self._settings.timeout_s
        try:
            await asyncio.wait({task, gone}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            task.cancel()
            gone.cancel()
        raise BadRequest(f"the answer took longer than {limit} s: send fewer images", 504)


async def _disconnected(request: Request) -> None:
    """Wait until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _in_thread(threads: Any, function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)


async def _parsed(body: bytes, function: Callable[[], T]) -> T:
    """Parse a body, in a thread if it is large: others are answered meanwhile."""
    return function() if len(body) < _INLINE else await asyncio.to_thread(function)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _examples(classifier: Classifier, prepared: Path) -> list[bytes]:
    """Choose images of the test split, of as many classes as possible, if it is the model's."""
    try:
        data = Manifest(prepared)
    except (InputError, OSError):
        return []
    card = classifier.card
    if data.classes != card.classes or data.images.shape[1] != card.image_size:
        return []
    seen: dict[int, int] = {}
    ranked = []
    for row in data.indices("test"):
        label = int(data.strata[row])
        seen[label] = seen.get(label, 0) + 1
        ranked.append((seen[label], label, row))
    return [as_png(data.images[row]) for _, _, row in sorted(ranked)[:_EXAMPLES]]


async def _healthy() -> dict[str, str]:
    """Answer as long as the server accepts requests."""
    return {"status": "ok"}


async def _page() -> Response:
    return Response(_PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=HEADERS)


async def _error(_: Request, error: Exception) -> Response:
    """Answer an error as JSON with one line; the log has what is not expected."""
    match error:
        case AnyHTTPException():
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        case BadRequest():
            return JSONResponse({"error": str(error)}, error.status)
        case RequestValidationError():
            return JSONResponse({"error": "an example has a number"}, 404)
        case ClientDisconnect():  # nobody reads this
            return JSONResponse({"error": "the client disconnected"}, 400)
    return JSONResponse({"error": "the server failed; see its log"}, 500)


_ERRORS: tuple[type[Exception], ...] = (
    *(AnyHTTPException, BadRequest, RequestValidationError, ClientDisconnect, Exception),
)
