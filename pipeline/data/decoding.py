"""How files become pixels: shape, bit depth, pages, size.

One `Decoding` for a data set; it travels with the models that are trained on it. A file rarely
says how many of its 16 bits are used, so the images of a data set share one black and one white:
else a dark one would become as bright as the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

Values = NDArray[np.generic]

_DEPTHS = (8, 10, 12, 14, 16)  # of cameras, scanners and microscopes
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class Tones:
    """The values that become black and white.

    Attributes:
        black: Becomes 0.
        white: Becomes 255.
    """

    black: float
    white: float

    @classmethod
    def of_depth(cls, bits: int) -> Tones:
        """The tones of whole numbers of that many bits."""
        return cls(0.0, 2.0**bits - 1)

    @classmethod
    def of(cls, values: Values) -> Tones:
        """The narrowest usual tones that hold all values.

        Whole numbers have one of the usual depths up to 16 bits, fractions go from 0 to 1.
        What fits neither has no agreed white: its own lowest and highest value are taken.
        """
        low, high = ends(values)
        if values.dtype.kind == "f" and low >= 0 and high <= 1:
            return cls(0.0, 1.0)
        if values.dtype.kind in "iu" and low >= 0 and high < 2**16:
            return cls.of_depth(next(bits for bits in _DEPTHS if high < 2**bits))
        return cls(low, high)

    @property
    def depth(self) -> int | None:
        """Bits of whole numbers, None for other tones."""
        bits = np.log2(self.white + 1) if self.black == 0 and self.white > 1 else 0.5
        return int(bits) if bits == int(bits) else None

    def __or__(self, other: Tones) -> Tones:
        """The tones that hold both."""
        return Tones(min(self.black, other.black), max(self.white, other.white))

    def __str__(self) -> str:
        """As a person would say it."""
        return f"{self.depth} bits" if self.depth else f"{self.black:g} to {self.white:g}"

    def holds(self, values: Values) -> bool:
        """Whether values fit these tones; where white is a guess, up to half as much again does."""
        _, high = ends(values)
        return high <= (self.white if self.depth else self.white + (self.white - self.black) / 2)

    def eight_bits(self, values: Values) -> NDArray[np.uint8]:
        """Values -> 0 to 255, of the same shape."""
        span = (self.white - self.black) or 1.0
        numbers = np.nan_to_num(
            values.astype(np.float64), nan=self.black, posinf=self.white, neginf=self.black
        )
        scaled = (numbers - self.black) / span
        return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


MOST_MEGAPIXELS = 500
"""No image may have more, whatever is set."""


class Fit(StrEnum):
    """How an image is brought to a square."""

    crop = "crop"
    squash = "squash"
    pad = "pad"


class Pages(StrEnum):
    """What is done with a file of several pages, such as a stack from a microscope."""

    refuse = "refuse"
    first = "first"


@dataclass(frozen=True)
class Decoding:
    """How files become pixels: the same for a data set and for what its models are shown later.

    Attributes:
        fit: `crop` keeps the centre, `squash` changes the aspect, `pad` adds white.
        tones: Black and white of images of more than 8 bits; None chooses for each image.
        pages: Of files with several.
        max_megapixels: Images with more are taken for decompression bombs, JPEGs with more
            than four times as many.
    """

    fit: Fit = Fit.crop
    tones: Tones | None = None
    pages: Pages = Pages.refuse
    max_megapixels: float = 100

    def to_json(self) -> dict[str, Any]:
        """As a summary or a model's card keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Decoding:
        """Read what `to_json` wrote."""
        tones = Tones(**kept["tones"]) if kept["tones"] else None
        return cls(Fit(kept["fit"]), tones, Pages(kept["pages"]), kept["max_megapixels"])


USUAL = Decoding()
"""Where nobody says how."""


def ends(values: Values) -> tuple[float, float]:
    """The lowest and the highest number; NaN and infinity, as in the gaps of a scan, are none."""
    numbers = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)


def values_of(image: Image.Image, reopen: Callable[[], Image.Image]) -> Values | None:
    """Load an image; the values of one of more than 8 bits a channel, None for others.

    Args:
        image: As Pillow opened it.
        reopen: Opens the same file once more.

    Returns:
        (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA values.
    """
    parts = image.tile if isinstance(image, ImageFile.ImageFile) else []
    swapped = [turned for part in parts if (turned := _swapped(part))]
    image.load()
    if image.mode.startswith(("I", "F")):
        return np.asarray(image)
    if not swapped:
        return None
    # Pillow reads colours of 16 bits as their higher bytes. With the bytes in the other order
    # it reads the lower ones.
    again = cast(ImageFile.ImageFile, reopen())
    again.tile = swapped
    higher, lower = np.asarray(image), np.asarray(again)
    values: Values = higher.astype(np.uint16) * np.uint16(256) + lower
    return values


def _swapped(tile: ImageFile._Tile) -> ImageFile._Tile | None:
    """A part of a file to decode, of 16 bits a colour, with its bytes in the other order."""
    mode, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
    name, _, order = str(mode).partition(";16")
    if name not in ("RGB", "RGBA", "RGBX") or order not in _SWAPPED:
        return None
    turned = f"{name};16{_SWAPPED[order]}"
    return tile._replace(args=turned if isinstance(tile.args, str) else (turned, *rest))
