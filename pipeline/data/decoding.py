"""What is done with what pictures differ in: shape, depth, pages, size.

One `Decoding` for a data set; it travels with the models that are trained on it.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pipeline.data.tones import Tones

MOST_MEGAPIXELS = 500
"""No picture may have more, whatever is set."""


class Fit(StrEnum):
    """How a picture is brought to a square."""

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
        tones: Black and white of pictures of more than 8 bits; None chooses for each picture.
        pages: Of files with several.
        max_megapixels: Pictures with more are taken for decompression bombs, JPEGs with more
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
    def from_json(cls, kept: dict[str, Any]) -> "Decoding":
        """Read what `to_json` wrote; earlier versions kept `fit` alone."""
        tones = kept.get("tones")
        return cls(
            Fit(kept["fit"]),
            Tones(**tones) if tones else None,
            Pages(kept.get("pages", Pages.first)),
            kept.get("max_megapixels", cls.max_megapixels),
        )


USUAL = Decoding()
"""Where nobody says how."""
