"""The side that pictures are brought to where nobody names one.

pictures -> a side in px and the reason. Reads the headers of a sample.
"""

import statistics
from collections.abc import Iterable, Sequence

from pipeline.data import images
from pipeline.intake.sources import Picture
from pipeline.storage.derived import Derived

SMALLEST_PX = 96
"""Networks that were trained on larger pictures see little in smaller ones."""
USUAL_PX = 224
"""What most pre-trained networks were trained at."""

_STEP_PX = 32  # by which networks halve and halve again
_SAMPLE = 400


def derive(pictures: Iterable[Picture]) -> Derived:
    """Choose a side from the headers of a sample.

    Args:
        pictures: Of a source.
    """
    shorter = [
        min(found)
        for picture in spread(pictures, _SAMPLE)
        if isinstance(content := images.or_reason(picture.read), bytes)
        and not isinstance(found := _sides(content), str)
    ]
    return fitting(shorter)


def fitting(
    shorter: Sequence[int], least_px: int = SMALLEST_PX, most_px: int = USUAL_PX
) -> Derived:
    """A side that keeps what the pictures show, and no more.

    Args:
        shorter: The shorter side of each picture in px.
        least_px: The smallest side that the backbone works with.
        most_px: The largest.
    """
    if not shorter:
        return Derived(most_px, "no picture could be measured")
    median = statistics.median(shorter)
    rounded = -(-int(median) // _STEP_PX) * _STEP_PX
    return Derived(
        min(max(rounded, least_px), most_px),
        f"the shorter side of the pictures has {median:g} px (median)",
    )


def spread(pictures: Iterable[Picture], most: int) -> list[Picture]:
    """Up to `most` pictures, evenly spread over all of them."""
    kept: list[Picture] = []
    stride = 1
    for place, picture in enumerate(pictures):
        if place % stride:
            continue
        kept.append(picture)
        if len(kept) > most:
            kept, stride = kept[::2], 2 * stride
    return kept


def _sides(content: bytes) -> tuple[int, int] | str:
    return images.or_reason(lambda: images.sides(content))
