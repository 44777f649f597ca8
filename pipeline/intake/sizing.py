"""The side that pictures are brought to where nobody names one.

pictures -> a side in px and the reason. Reads the headers of a sample.
"""

import statistics
from collections.abc import Iterable

from pipeline.data import images
from pipeline.intake.sources import Picture
from pipeline.storage.derived import Derived

SMALLEST_PX = 96
"""Networks that were trained on larger pictures see little in smaller ones."""
USUAL_PX = 224
"""What most pre-trained networks were trained at."""

_STEP_PX = 32  # by which networks halve and halve again
_SAMPLE = 400


def derive(pictures: Iterable[Picture], largest_px: int = USUAL_PX) -> Derived:
    """Choose a side that keeps what the pictures show, and no more.

    Args:
        pictures: Of a source.
        largest_px: The side that the backbone was trained at.
    """
    shorter = [
        min(found)
        for picture in spread(pictures, _SAMPLE)
        if isinstance(content := images.or_reason(picture.read), bytes)
        and not isinstance(found := _sides(content), str)
    ]
    if not shorter:
        return Derived(largest_px, "no picture could be measured")
    median = statistics.median(shorter)
    fitting = -(-int(median) // _STEP_PX) * _STEP_PX
    side = min(max(fitting, min(SMALLEST_PX, largest_px)), largest_px)
    return Derived(side, f"the shorter side of the pictures has {median:g} px (median)")


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
