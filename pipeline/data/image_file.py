"""Decode and resize images: shared by training, evaluation and prediction.

bytes, whatever the name -> (H, W, 3) uint8 RGB; errors say what the file is instead. Independent of
datasets, splits and Keras.
"""

import io
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import IcoImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from pipeline.data import profiles
from pipeline.data.decoding import (
    MOST_MEGAPIXELS,
    USUAL,
    Decoding,
    Fit,
    Pages,
    Tones,
    ends,
    values_of,
)

Image.init()

Pixels = NDArray[np.uint8]
T = TypeVar("T")

_JPEG_TIMES = 4
"""JPEGs may have this many times the pixels: their decoder skips detail that is not needed."""

_ORIENTATION_TAG = 0x0112
_SUBFILE_TAG = 0x00FE
_WHITE_TAG = 0x0106  # 0: the lowest value is white, which Pillow handles only up to 8 bits
_ANIMATED, _MOST_FRAMES = ("GIF", "PNG", "WEBP", "AVIF"), 50
_SMALLER_COPY = 1
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Formats with a signature of their own that this Pillow can read. EPS (runs Ghostscript), stub
# formats and those that Pillow guesses from weak signatures (TGA, PCX) are excluded. MPO is
# opened as JPEG: its first image.
_WANTED = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "SGI")
FORMATS = tuple(name for name in (*_WANTED, "TIFF", "WEBP") if name in Image.OPEN)

# Errors that Pillow's decoders raise for damaged files.
DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError),
    *(ArithmeticError, MemoryError, Image.DecompressionBombError),
)

_SIGNATURES = {
    "BMP": (0, b"BM"),
    "GIF": (0, b"GIF8"),
    "HEIF": (4, b"ftyp"),
    "JPEG": (0, b"\xff\xd8\xff"),
    "JPEG 2000": (4, b"jP  "),
    "PNG": (0, b"\x89PNG"),
    "TIFF, little-endian": (0, b"II*\0"),
    "TIFF, big-endian": (0, b"MM\0*"),
}


class BadImage(ValueError):
    """A file that is not a usable image; the message is the reason."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: (size_px, size_px, 3) uint8 RGB.
        width: Width in the file, upright, in px.
        height: Height, likewise.
        tones: Narrowest usual tones that contain it, if it has more than 8 bits per channel.
    """

    pixels: Pixels
    width: int
    height: int
    tones: Tones | None


def or_reason(read: Callable[[], T]) -> T | str:
    """Return the result of `read`, or the reason why it is not an image."""
    try:
        return read()
    except BadImage as error:
        return str(error)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def decode(content: bytes, size_px: int, how: Decoding = USUAL) -> Decoded:
    """Decode an image, upright and flattened on white, and bring it to a square.

    Raises:
        BadImage: The content is not an image, is damaged, or is not allowed by `how`.
    """
    image = opened(content)
    width, height = image.size
    _check_size(image, content, how.max_megapixels)
    pages = _pages(opened(content)) if image.format == "TIFF" else 1
    if pages > 1 and how.pages == Pages.refuse:
        raise BadImage(f"{pages} pages: save each as its own file, or set data.pages=first")
    try:
        # The JPEG decoder can skip detail that the resize would average away.
        image.draft(None, (2 * size_px, 2 * size_px))
        values = values_of(image, lambda: opened(content))
        turn = _UPRIGHT.get(_orientation(image))
        tones = _tones(image, values)
        profile = image.info.get("icc_profile")
        if values is not None and tones is not None:
            image = _with_tones(image, values, how.tones or tones)
        elif image.format in _ANIMATED:
            image = _with_content(image)
        image = _to_rgb(profiles.to_srgb(image, profile))
    except DECODER_ERRORS as error:
        raise BadImage(reason_of(error)) from error
    if turn is not None:
        image = image.transpose(turn)
        if turn not in (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4]):
            width, height = height, width
    return Decoded(np.asarray(_square(image, size_px, how.fit)), width, height, tones)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if the EXIF block is absent or damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except DECODER_ERRORS:
        return 1


def _check_size(image: Image.Image, content: bytes, max_megapixels: float) -> None:
    times = _JPEG_TIMES if image.format in ("JPEG", "MPO") else 1
    most = min(max_megapixels * times, MOST_MEGAPIXELS)
    inside = image.ico.entry if isinstance(image, IcoImagePlugin.IcoImageFile) else []
    sizes = [image.size, *(opened(content[entry.offset :]).size for entry in inside)]
    for width, height in sizes:
        if width * height > 1e6 * most:
            raise BadImage(
                f"decompression bomb? {width} x {height} pixels are {width * height / 1e6:.0f} "
                f"megapixels, the limit is {most:g}: if it is a real image, raise "
                "data.max_megapixels"
            )


def _pages(image: Image.Image) -> int:
    """Count the pages of a TIFF, without smaller copies of the first."""
    try:
        kinds = []
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            kinds.append(image.getexif().get(_SUBFILE_TAG, 0))
        return sum(not kind & _SMALLER_COPY for kind in kinds)
    except DECODER_ERRORS:
        return 1  # decoding reports the fault


def _tones(image: Image.Image, values: NDArray[np.generic] | None) -> Tones | None:
    if values is None:
        return None
    if image.format == "PPM" and image.mode == "I":
        return Tones.of_depth(16)  # the header defines white, and Pillow scaled by it
    visible = ~_transparent(image, values)
    return Tones.of(values[visible] if visible.any() else values)


def _with_tones(image: Image.Image, values: NDArray[np.generic], tones: Tones) -> Image.Image:
    """Convert an image with more than 8 bits to 8 bits."""
    hidden = _transparent(image, values)
    if not tones.holds(values[~hidden]):
        raise BadImage(
            f"its brightest value is {ends(values)[1]:g}, beyond the dataset's {tones}: set "
            "data.depth to the bit depth of its images"
        )
    eight = tones.eight_bits(values)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and not image.tag_v2.get(_WHITE_TAG, 1):
        eight = 255 - eight
    flat = Image.fromarray(eight)
    if image.mode == "RGBA":
        flat.putalpha(image.getchannel("A"))
    elif hidden.any():
        flat.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return flat


def _transparent(image: Image.Image, colours: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Mask (H, W) of the value that a 16-bit PNG declares transparent."""
    declared = image.info.get("transparency")
    if declared is None or isinstance(declared, bytes):
        return np.zeros(colours.shape[:2], bool)
    same = colours == np.asarray(declared)
    return np.asarray(same.all(axis=-1) if same.ndim == 3 else same)


def _with_content(image: Image.Image) -> Image.Image:
    """Return the first frame of an animation that is not blank, else the first frame."""
    frames = range(min(getattr(image, "n_frames", 1), _MOST_FRAMES))
    with suppress(*DECODER_ERRORS):  # a later frame is damaged; the first one is intact
        for number in frames if len(frames) > 1 else ():
            image.seek(number)
            if _to_rgb(image).getcolors(1) is None:  # more than one colour
                return image
    image.seek(0)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    size = (size_px, size_px)
    if image.size == size:
        return image
    method = Image.Resampling.BILINEAR
    if fit == Fit.squash:
        return image.resize(size, method)
    if fit == Fit.pad:
        return ImageOps.pad(image, size, method, color="white")
    return ImageOps.fit(image, size, method)


def opened(content: bytes) -> Image.Image:
    """Open an image.

    Raises:
        BadImage: The file is not an image, or is damaged.
    """
    if not content:
        raise BadImage("empty file")
    if content.startswith(b"version https://git-lfs.github.com/spec/"):
        raise BadImage("git-lfs pointer instead of the image: run git lfs pull")
    try:
        return _recognised(content)
    except UnidentifiedImageError as error:
        raise BadImage(_unidentified(content)) from error
    except DECODER_ERRORS as error:
        raise BadImage(reason_of(error)) from error


def _recognised(content: bytes) -> Image.Image:
    """Open an image as `Image.open` does, but without its limit on pixels.

    Pillow has one limit per process, and services that import this package may rely on it; the
    limit for a dataset is `Decoding.max_megapixels`.
    """
    for name in FORMATS:
        read, accepts = Image.OPEN[name]
        try:
            if accepts is None or accepts(content[:16]) is True:
                return read(io.BytesIO(content), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
    raise UnidentifiedImageError


def _unidentified(content: bytes) -> str:
    """Explain why no decoder recognised the content, as far as its first bytes show."""
    sides = {b"GIF": (content[6:8], content[8:10]), b"\x89PN": (content[16:20], content[20:24])}
    if not all(any(side) for side in sides.get(content[:3], ())):
        return "zero pixels: a side of length 0"
    for name, (start, signature) in _SIGNATURES.items():
        if content[start : start + len(signature)] == signature:
            return f"damaged, or not supported here: {name}"
    return "not an image: no decoder recognises the content"


def reason_of(error: BaseException) -> str:
    """Explain in one line why a decoder failed."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError) or "MAX_TEXT_CHUNK" in text:
        return f"decompression bomb: {text}"
    if any(hint in text.lower() for hint in ("truncated", "end of file", "only got")):
        return f"truncated: {text}"
    return f"damaged: {text}"
