"""Settings for decoding: shape, bit depth, pages, size.

A dataset has one `Decoding`, which travels with the models trained on it. Files rarely say how
many of their 16 bits are used, so all images of a dataset share one black and one white point:
otherwise a dark image would become as bright as the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

Values = NDArray[np.generic]

_DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras, scanners and microscopes
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


@dataclass(frozen=True)
class Tones:
    """Values that become black, 0, and white, 255."""

    black: float
    white: float

    @classmethod
    def of_depth(cls, bits: int) -> Tones:
        """Return the tones of integers with this many bits."""
        return cls(0.0, 2.0**bits - 1)

    @classmethod
    def of(cls, values: Values) -> Tones:
        """Return the narrowest usual tones that contain all values.

        Integers have one of the usual depths up to 16 bits, fractions range from 0 to 1. Values
        that fit neither have no agreed white: their own minimum and maximum are used.
        """
        low, high = ends(values)
        if values.dtype.kind == "f" and low >= 0 and high <= 1:
            return cls(0.0, 1.0)
        if values.dtype.kind in "iu" and low >= 0 and high < 2**16:
            return cls.of_depth(next(bits for bits in _DEPTHS if high < 2**bits))
        return cls(low, high)

    @property
    def depth(self) -> int | None:
        """Bit depth of integers, None for other tones."""
        bits = np.log2(self.white + 1) if self.black == 0 and self.white > 1 else 0.5
        return int(bits) if bits == int(bits) else None

    def __or__(self, other: Tones) -> Tones:
        """Return the tones that contain both."""
        return Tones(min(self.black, other.black), max(self.white, other.white))

    def __str__(self) -> str:
        """Describe the tones for people."""
        return f"{self.depth} bits" if self.depth else f"{self.black:g} to {self.white:g}"

    def holds(self, values: Values) -> bool:
        """Check if values fit; if white is a guess, up to 50 % beyond it is accepted."""
        _, high = ends(values)
        return high <= (self.white if self.depth else self.white + (self.white - self.black) / 2)

    def eight_bits(self, values: Values) -> NDArray[np.uint8]:
        """Scale values to 0 to 255, keeping the shape."""
        span = (self.white - self.black) or 1.0
        numbers = np.nan_to_num(
            values.astype(np.float64), nan=self.black, posinf=self.white, neginf=self.black
        )
        scaled = (numbers - self.black) / span
        return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


MOST_MEGAPIXELS = 500
"""Upper limit for any image, whatever the settings."""


class Fit(StrEnum):
    """Way to bring an image to a square."""

    crop = "crop"
    squash = "squash"
    pad = "pad"


class Pages(StrEnum):
    """Treatment of files with several pages, such as a stack from a microscope."""

    refuse = "refuse"
    first = "first"


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding, shared by a dataset and everything its models see later.

    Attributes:
        fit: `crop` keeps the centre, `squash` changes the aspect ratio, `pad` adds white.
        tones: Black and white of images with more than 8 bits; None chooses for each image.
        pages: Treatment of files with several pages.
        max_megapixels: Larger images are rejected as decompression bombs, JPEGs if more than four
            times as large.
    """

    fit: Fit = Fit.crop
    tones: Tones | None = None
    pages: Pages = Pages.refuse
    max_megapixels: float = 100

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Decoding:
        """Read the result of `asdict`."""
        tones = Tones(**values["tones"]) if values["tones"] else None
        return cls(Fit(values["fit"]), tones, Pages(values["pages"]), values["max_megapixels"])


USUAL = Decoding()
"""Default decoding."""


def ends(values: Values) -> tuple[float, float]:
    """Return the finite minimum and maximum; scans have NaN or infinity in their gaps."""
    numbers = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)


def values_of(image: Image.Image, reopen: Callable[[], Image.Image]) -> Values | None:
    """Load an image and return its values if it has more than 8 bits per channel, else None.

    (H, W) grey or (H, W, 3) RGB; `reopen` opens the same file once more.
    """
    parts = image.tile if isinstance(image, ImageFile.ImageFile) else []
    swapped = [turned for part in parts if (turned := _swapped(part))]
    image.load()
    if image.mode.startswith(("I", "F")):
        return np.asarray(image)
    if not swapped:
        return None
    # Pillow reads 16-bit colours as their high bytes. With the byte order swapped, it reads the
    # low bytes.
    again = cast(ImageFile.ImageFile, reopen())
    again.tile = swapped
    higher, lower = np.asarray(image), np.asarray(again)
    values: Values = higher.astype(np.uint16) * np.uint16(256) + lower
    return values[..., :3]


def _swapped(tile: ImageFile._Tile) -> ImageFile._Tile | None:
    """Swap the byte order of a part of a file with 16 bits per colour."""
    mode, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
    name, _, order = str(mode).partition(";16")
    if name not in ("RGB", "RGBA", "RGBX") or order not in _SWAPPED:
        return None
    turned = f"{name};16{_SWAPPED[order]}"
    return tile._replace(args=turned if isinstance(tile.args, str) else (turned, *rest))
