"""What is derived from the pictures where nobody sets it: their side in px, and their bit depth.

pictures -> a side and the reason, from the headers of a sample; tones of each -> tones of all.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_

from pipeline.data import images
from pipeline.data.decoding import Tones
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


def common_tones(found: Mapping[str, Tones]) -> tuple[Tones, Derived]:
    """One black and one white for all pictures of more than 8 bits, and the reason.

    Args:
        found: Path -> tones of the picture alone; at least one.
    """
    whole = reduce(or_, found.values())
    count = sum(one == whole for one in found.values())
    reason = (
        f"{len(found)} pictures have more than 8 bits a channel, {count} of them use this range"
    )
    return whole, Derived(whole.depth or str(whole), reason)


def _sides(content: bytes) -> tuple[int, int] | str:
    return images.or_reason(lambda: images.sides(content))
