"""Decode and resize pictures: the one code that training, evaluation and prediction share.

bytes -> (H, W, 3) uint8 RGB. Knows nothing of data sets, splits or Keras.
"""

import io
import warnings
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]
T = TypeVar("T")

MAX_PIXELS = 100_000_000
"""Pictures with more pixels than this are taken for decompression bombs."""

# Pillow raises at twice this value, and only warns below it.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
# Pillow warns of damaged metadata; a picture is judged by its pixels.
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.init()

# Formats with a signature of their own, where this Pillow can read them. EPS (runs
# Ghostscript), the stub formats and those that Pillow guesses from weak signatures
# (TGA, PCX) are left out. MPO is opened as JPEG: its first picture.
_WANTED = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "SGI")
FORMATS = tuple(name for name in (*_WANTED, "TIFF", "WEBP") if name in Image.OPEN)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (
    *(OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError),
    *(ArithmeticError, MemoryError, Image.DecompressionBombError),
)


_DEPTHS = (8, 10, 12, 14, 16)
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


class BadPicture(ValueError):
    """A file that cannot be a picture; the message is the reason."""


class Fit(StrEnum):
    """How a picture is brought to a square."""

    crop = "crop"
    squash = "squash"
    pad = "pad"


def or_reason(read: Callable[[], T]) -> T | str:
    """What `read` gives, or in words why it is no picture."""
    try:
        return read()
    except BadPicture as error:
        return str(error)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def decode(content: bytes, size_px: int, fit: Fit = Fit.crop) -> tuple[Pixels, int, int]:
    """Decode a picture, upright and flattened on white, and bring it to a square.

    Args:
        content: The file's bytes, in any of `FORMATS`; the name does not matter.
        size_px: Side of the square.
        fit: `crop` keeps the centre, `squash` changes the aspect, `pad` adds white.

    Returns:
        (size_px, size_px, 3) uint8 RGB, and the upright width and height in the file.

    Raises:
        BadPicture: The content is no picture, damaged, or a decompression bomb.
    """
    picture = _open(content)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadPicture(f"decompression bomb: {width} x {height} pixels, at most {MAX_PIXELS}")
    try:
        # Lets the JPEG decoder skip detail that the resize would average away.
        picture.draft(None, (2 * size_px, 2 * size_px))
        picture.load()
        turn = _UPRIGHT.get(_orientation(picture))
        picture = _to_rgb(picture)
    except _DECODER_ERRORS as error:
        raise BadPicture(_reason(error)) from error
    if turn is not None:
        picture = picture.transpose(turn)
        if turn not in (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4]):
            width, height = height, width
    return np.asarray(_square(picture, size_px, fit)), width, height


def sides(content: bytes) -> tuple[int, int]:
    """Width and height of a picture in its file, of which only the header is read.

    Raises:
        BadPicture: The content is no picture.
    """
    width, height = _open(content).size
    return width, height


def _open(content: bytes) -> Image.Image:
    if not content:
        raise BadPicture("empty file")
    if content.startswith(b"version https://git-lfs.github.com/spec/"):
        raise BadPicture("git-lfs pointer, not the picture itself: run git lfs pull")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise BadPicture(_unidentified(content)) from error
    except _DECODER_ERRORS as error:
        raise BadPicture(_reason(error)) from error
    return picture


def _unidentified(content: bytes) -> str:
    """Why no decoder took the content, as far as its first bytes tell."""
    sides = {b"GIF": (content[6:8], content[8:10]), b"\x89PN": (content[16:20], content[20:24])}
    if not all(any(side) for side in sides.get(content[:3], ())):
        return "zero pixels: a side of length 0"
    for name, (start, signature) in _SIGNATURES.items():
        if content[start : start + len(signature)] == signature:
            return f"damaged, or of a kind no decoder here reads: {name}"
    return "not a picture: no decoder recognises the content"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Image.DecompressionBombError) or "MAX_TEXT_CHUNK" in text:
        return f"decompression bomb: {text}"
    if any(hint in text.lower() for hint in ("truncated", "end of file", "only got")):
        return f"truncated: {text}"
    return f"damaged: {text}"


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where the EXIF block is absent or damaged."""
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except _DECODER_ERRORS:
        return 1


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return _eight_bits(np.asarray(picture)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(values: NDArray[np.generic]) -> Image.Image:
    """Greyscale of more than 8 bits to 8 bits, keeping its tones.

    Pillow's own conversion clips at 255. White is the top of the narrowest usual
    depth (8 to 16 bits) that holds the brightest pixel, for 12-bit cameras write
    12 bits into 16. Wider ranges, and floats beyond [0, 1], have no agreed white:
    they are stretched.
    """
    tones = np.nan_to_num(values.astype(np.float64))
    low, high = float(tones.min()), float(tones.max())
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif values.dtype.kind in "iu" and low >= 0 and high < 2**16:
        low, high = 0.0, 2.0 ** next(bits for bits in _DEPTHS if high < 2**bits) - 1
    scaled = (tones - low) / ((high - low) or 1.0) * 255.0
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _square(picture: Image.Image, size_px: int, fit: Fit) -> Image.Image:
    size = (size_px, size_px)
    if picture.size == size:
        return picture
    method = Image.Resampling.BILINEAR
    ways: dict[Fit, Callable[[], Image.Image]] = {
        Fit.crop: lambda: ImageOps.fit(picture, size, method),
        Fit.squash: lambda: picture.resize(size, method),
        Fit.pad: lambda: ImageOps.pad(picture, size, method, color="white"),
    }
    return ways[fit]()
