"""What is derived from the images where nobody sets it: their side in px, and their bit depth.

images -> a side and the reason, from the headers of a sample; tones of each -> tones of all.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_

from pipeline.data import image_file
from pipeline.data.decoding import Tones
from pipeline.intake.sources import Sample
from pipeline.storage.derived import Derived

SMALLEST_PX = 96
"""Networks that were trained on larger images see little in smaller ones."""
USUAL_PX = 224
"""What most pre-trained networks were trained at."""

_STEP_PX = 32  # by which networks halve and halve again
_SAMPLE = 400


def derive(images: Iterable[Sample]) -> Derived:
    """Choose a side from the headers of a sample.

    Args:
        images: Of a source.
    """
    shorter = [
        min(found)
        for image in spread(images, _SAMPLE)
        if isinstance(content := image_file.or_reason(image.read), bytes)
        and not isinstance(found := _sides(content), str)
    ]
    return fitting(shorter)


def fitting(
    shorter: Sequence[int], least_px: int = SMALLEST_PX, most_px: int = USUAL_PX
) -> Derived:
    """A side that keeps what the images show, and no more.

    Args:
        shorter: The shorter side of each image in px.
        least_px: The smallest side that the backbone works with.
        most_px: The largest.
    """
    if not shorter:
        return Derived(most_px, "no image could be measured")
    median = statistics.median(shorter)
    rounded = -(-int(median) // _STEP_PX) * _STEP_PX
    return Derived(
        min(max(rounded, least_px), most_px),
        f"the shorter side of the images has {median:g} px (median)",
    )


def spread(images: Iterable[Sample], most: int) -> list[Sample]:
    """Up to `most` images, evenly spread over all of them."""
    kept: list[Sample] = []
    stride = 1
    for place, image in enumerate(images):
        if place % stride:
            continue
        kept.append(image)
        if len(kept) > most:
            kept, stride = kept[::2], 2 * stride
    return kept


def common_tones(found: Mapping[str, Tones]) -> tuple[Tones, Derived]:
    """One black and one white for all images of more than 8 bits, and the reason.

    Args:
        found: Path -> tones of the image alone; at least one.
    """
    whole = reduce(or_, found.values())
    count = sum(one == whole for one in found.values())
    reason = f"{len(found)} images have more than 8 bits a channel, {count} of them use this range"
    return whole, Derived(whole.depth or str(whole), reason)


def _sides(content: bytes) -> tuple[int, int] | str:
    return image_file.or_reason(lambda: image_file.sides(content))
