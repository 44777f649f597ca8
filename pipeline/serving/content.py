"""The image file that a value contains, names, or has the pixels of.

bytes, base64, path, array or PIL image -> the bytes of a file, so that everything passes the same
decoder.
"""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.image_file import BadImage

_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
_WANTED = "a row must have the base64 of an image file, or an array (H, W, 3) of 0 to 255"


def content(value: Any, max_bytes: int) -> bytes:
    """Return the bytes of an image file.

    Raises:
        BadImage: It is none of these, or too large.
        OSError: The file cannot be read.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            content = bytes(value)
        case str():
            content = _from_base64(value, max_bytes)
        case Path():
            content = value.read_bytes()
        case list() | np.ndarray():
            content = _from_array(value)
        case Image.Image():
            content = _from_image(value)
        case _:
            raise BadImage(f"not an image: {_WANTED}, got {_named(value)}")
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    return content


def _named(value: Any) -> str:
    """Describe a value in JSON terms."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float() | np.number():
            return f"the number {value}"
        case dict():
            return "an object"
    return "something else"


def _from_base64(text: str, max_bytes: int) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) * 3 // 4 > max_bytes + 2:
        raise _too_large(len(text) * 3 // 4, max_bytes)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f"not base64: {error}") from error


def _from_array(value: Any) -> bytes:
    """Encode pixels as a PNG."""
    try:
        pixels = np.asarray(value)
        fits = pixels.ndim in (2, 3) and pixels.size and pixels.shape[2:] in ((), (3,))
        if not fits or pixels.min() < 0 or pixels.max() > 255 or (pixels % 1).any():
            raise ValueError
    except (TypeError, ValueError) as error:
        raise BadImage(f"not an image: {_WANTED}") from error
    return as_png(pixels.astype(np.uint8))


def as_png(pixels: Any) -> bytes:
    """Encode (H, W) or (H, W, 3) uint8 pixels, without compression."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _from_image(image: Image.Image) -> bytes:
    """Encode a PIL image losslessly, with all that decoding its file would consider."""
    file = io.BytesIO()
    kind = "PNG" if image.mode in _PNG_MODES else "TIFF"
    profile = image.info.get("icc_profile")
    try:
        image.save(file, kind, exif=image.getexif(), icc_profile=profile, compress_level=0)
    except OSError as error:  # PIL reads the pixels now
        raise BadImage(f"damaged: {error}") from error
    return file.getvalue()


def _too_large(size: int, limit: int) -> BadImage:
    return BadImage(f"too large: {size / 1e6:.1f} MB, the limit is {limit / 1e6:g} MB")
