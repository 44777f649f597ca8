"""Decode and resize pictures: the one code that training, evaluation and prediction share.

bytes -> (H, W, 3) uint8 RGB. Knows nothing of data sets, splits or Keras.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import IcoImagePlugin, Image, ImageOps, TiffImagePlugin

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
from pipeline.data.opening import DECODER_ERRORS, BadPicture, opened, reason_of

Pixels = NDArray[np.uint8]
T = TypeVar("T")

_JPEG_TIMES = 4
"""How many times the pixels a JPEG may have: its decoder skips detail that is not wanted."""

_ORIENTATION_TAG = 0x0112
_SUBFILE_TAG = 0x00FE
_WHITE_TAG = 0x0106  # 0: the lowest value is white, which Pillow knows up to 8 bits
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


class Decoded(NamedTuple):
    """A picture, decoded.

    Attributes:
        pixels: (size_px, size_px, 3) uint8 RGB.
        width: In the file, upright, in px.
        height: Likewise.
        tones: The narrowest usual ones that hold it, if it has more than 8 bits a channel.
    """

    pixels: Pixels
    width: int
    height: int
    tones: Tones | None


def or_reason(read: Callable[[], T]) -> T | str:
    """What `read` gives, or in words why it is no picture."""
    try:
        return read()
    except BadPicture as error:
        return str(error)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def decode(content: bytes, size_px: int, how: Decoding = USUAL) -> Decoded:
    """Decode a picture, upright and flattened on white, and bring it to a square.

    Args:
        content: The file's bytes, in any of `FORMATS`; the name does not matter.
        size_px: Side of the square.
        how: What is done with what pictures differ in.

    Raises:
        BadPicture: The content is no picture, damaged, or one that `how` does not allow.
    """
    picture = opened(content)
    width, height = picture.size
    _check_size(picture, content, how.max_megapixels)
    pages = _pages(opened(content)) if picture.format == "TIFF" else 1
    if pages > 1 and how.pages == Pages.refuse:
        raise BadPicture(f"{pages} pages: save each as a file of its own, or set data.pages=first")
    try:
        # Lets the JPEG decoder skip detail that the resize would average away.
        picture.draft(None, (2 * size_px, 2 * size_px))
        values = values_of(picture, lambda: opened(content))
        turn = _UPRIGHT.get(_orientation(picture))
        tones = _tones(picture, values)
        profile = picture.info.get("icc_profile")
        if values is not None and tones is not None:
            picture = _with_tones(picture, values, how.tones or tones)
        elif picture.format in _ANIMATED:
            picture = _with_content(picture)
        picture = _to_rgb(profiles.to_srgb(picture, profile))
    except DECODER_ERRORS as error:
        raise BadPicture(reason_of(error)) from error
    if turn is not None:
        picture = picture.transpose(turn)
        if turn not in (_UPRIGHT[2], _UPRIGHT[3], _UPRIGHT[4]):
            width, height = height, width
    return Decoded(np.asarray(_square(picture, size_px, how.fit)), width, height, tones)


def sides(content: bytes) -> tuple[int, int]:
    """Width and height of a picture in its file, of which only the header is read.

    Raises:
        BadPicture: The content is no picture.
    """
    width, height = opened(content).size
    return width, height


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 where the EXIF block is absent or damaged."""
    try:
        return int(picture.getexif().get(_ORIENTATION_TAG, 1))
    except DECODER_ERRORS:
        return 1


def _check_size(picture: Image.Image, content: bytes, max_megapixels: float) -> None:
    times = _JPEG_TIMES if picture.format in ("JPEG", "MPO") else 1
    most = min(max_megapixels * times, MOST_MEGAPIXELS)
    inside = picture.ico.entry if isinstance(picture, IcoImagePlugin.IcoImageFile) else []
    sizes = [picture.size, *(opened(content[entry.offset :]).size for entry in inside)]
    for width, height in sizes:
        if width * height > 1e6 * most:
            raise BadPicture(
                f"decompression bomb? {width} x {height} pixels are {width * height / 1e6:.0f} "
                f"megapixels, at most {most:g} are allowed: if it is a real picture, raise "
                "data.max_megapixels"
            )


def _pages(picture: Image.Image) -> int:
    """How many pages a TIFF has, leaving out smaller copies of the first."""
    try:
        kinds = []
        for page in range(getattr(picture, "n_frames", 1)):
            picture.seek(page)
            kinds.append(picture.getexif().get(_SUBFILE_TAG, 0))
        return sum(not kind & _SMALLER_COPY for kind in kinds)
    except DECODER_ERRORS:
        return 1  # decoding tells what is wrong


def _tones(picture: Image.Image, values: NDArray[np.generic] | None) -> Tones | None:
    if values is None:
        return None
    if picture.format == "PPM" and picture.mode == "I":
        return Tones.of_depth(16)  # its header says what white is, and Pillow went by that
    colours = values[..., :3] if values.ndim == 3 else values
    seen = ~_transparent(picture, colours)
    return Tones.of(colours[seen] if seen.any() else colours)


def _with_tones(picture: Image.Image, values: NDArray[np.generic], tones: Tones) -> Image.Image:
    """A picture of more than 8 bits in 8."""
    colours = values[..., :3] if values.ndim == 3 else values
    hidden = _transparent(picture, colours)
    if not tones.holds(colours[~hidden]):
        raise BadPicture(
            f"its brightest value is {ends(colours)[1]:g}, beyond the {tones} of the data set: "
            "data.depth says how many bits its pictures have"
        )
    eight = tones.eight_bits(colours)
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and not picture.tag_v2.get(_WHITE_TAG, 1):
        eight = 255 - eight
    flat = Image.fromarray(eight)
    if picture.mode == "RGBA":
        flat.putalpha(picture.getchannel("A"))
    elif hidden.any():
        flat.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return flat


def _transparent(picture: Image.Image, colours: NDArray[np.generic]) -> NDArray[np.bool_]:
    """(H, W): where the value is the one that a PNG of 16 bits declares transparent."""
    declared = picture.info.get("transparency")
    if declared is None or isinstance(declared, bytes):
        return np.zeros(colours.shape[:2], bool)
    same = colours == np.asarray(declared)
    return np.asarray(same.all(axis=-1) if same.ndim == 3 else same)


def _with_content(picture: Image.Image) -> Image.Image:
    """The first frame of an animation that is not blank, or else the first one."""
    frames = range(min(getattr(picture, "n_frames", 1), _MOST_FRAMES))
    with suppress(*DECODER_ERRORS):  # of a later frame: the first one is intact
        for number in frames if len(frames) > 1 else ():
            picture.seek(number)
            if _to_rgb(picture).getcolors(1) is None:  # more than one
                return picture
    picture.seek(0)
    return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    return picture.convert("RGB")


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
