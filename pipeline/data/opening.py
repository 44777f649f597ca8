"""Open an image by its content, whatever its name; errors say what the file is instead.

bytes -> an image that Pillow has recognised but not yet decoded.
"""

import io
import struct

from PIL import Image, UnidentifiedImageError

Image.init()

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
