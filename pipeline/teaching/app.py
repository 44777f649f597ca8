"""The labelling page on this machine.

session -> a FastAPI app: state, images, labels. Only this machine can reach it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pipeline.data import image_file
from pipeline.data.decoding import Decoding, Fit
from pipeline.data.image_file import BadImage
from pipeline.errors import InputError
from pipeline.serving.app import HEADERS
from pipeline.teaching.session import Session

_PAGE = Path(__file__).with_name("page.html")
_SIDE_PX, _QUALITY = 480, 90


def create(session: Session) -> FastAPI:
    """Create the app."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # A page of another site must not label, not even by a name that resolves to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    for kind in (InputError, OSError, BadImage):  # such as a full disk, or a file that was removed
        app.add_exception_handler(kind, _error)

    @app.middleware("http")
    async def own_page(request: Request, answer: Any) -> Any:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            return JSONResponse({"error": f"requests of {origin} are refused"}, 403)
        return await answer(request)

    @app.get("/")
    def page() -> Response:
        return Response(_PAGE.read_bytes(), media_type="text/html; charset=utf-8", headers=HEADERS)

    @app.get("/state")
    def state() -> dict[str, Any]:
        return session.state()

    @app.get("/image")
    def file_of(path: str) -> Response:
        decoded = image_file.decode(session.sample(path), _SIDE_PX, Decoding(Fit.pad))
        scale = _SIDE_PX / max(decoded.width, decoded.height)
        left, top = (round((_SIDE_PX - scale * side) / 2) for side in decoded[1:3])
        image = Image.fromarray(decoded.pixels)
        image = image.crop((left, top, _SIDE_PX - left, _SIDE_PX - top))  # without the padding
        file = io.BytesIO()
        image.save(file, "JPEG", quality=_QUALITY)
        headers = {"Cache-Control": "max-age=3600"}
        return Response(file.getvalue(), media_type="image/jpeg", headers=headers)

    @app.get("/similar")
    def similar(path: str) -> list[str]:
        return session.similar(path)

    @app.post("/label")
    def label(
        paths: Annotated[list[str], Body()],
        label: Annotated[str, Body()],
        seconds: Annotated[float, Body()] = 0.0,
    ) -> dict[str, Any]:
        session.label(paths, label, seconds)
        return session.state()

    @app.post("/skip")
    def skip(path: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
        session.skip(path)
        return session.state()

    @app.post("/undo")
    def undo() -> dict[str, Any]:
        return {"path": session.undo(), **session.state()}

    return app


async def _error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)
