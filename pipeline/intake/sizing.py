"""Derive image size and bit depth from the images.

headers of a sample of images -> a side in px with the reason; tones of each -> tones of all.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import or_

from pipeline.data import image_file
from pipeline.data.decoding import Tones
from pipeline.data.image_file import opened
from pipeline.intake.sources import Sample
from pipeline.storage.derived import Derived

SMALLEST_PX = 160
"""Networks trained on larger images perform poorly on smaller ones."""
USUAL_PX = 224
"""Size that most pre-trained networks were trained at."""

_STEP_PX = 32  # networks halve the side five times
_SAMPLE = 400


def derive(images: Iterable[Sample]) -> Derived:
    """Choose the image size from the headers of a sample of the images."""
    sides = map(_sides, spread(images, _SAMPLE))
    return fitting([min(own) for own in sides if not isinstance(own, str)])


def fitting(
    shorter: Sequence[int], least_px: int = SMALLEST_PX, most_px: int = USUAL_PX
) -> Derived:
    """Choose a side that keeps the detail of the images, and no more.

    Args:
        shorter: Shorter side of each image in px.
        least_px: Smallest side that the backbone accepts.
        most_px: Largest side.
    """
    if not shorter:
        return Derived(most_px, "no image could be measured")
    median = statistics.median(shorter)
    rounded = -(-int(median) // _STEP_PX) * _STEP_PX
    return Derived(
        min(max(rounded, least_px), most_px),
        f"the shorter side of the images is {median:g} px (median)",
    )


def spread(images: Iterable[Sample], most: int) -> list[Sample]:
    """Select up to `most` images, evenly spread over all of them."""
    chosen: list[Sample] = []
    stride = 1
    for place, image in enumerate(images):
        if place % stride:
            continue
        chosen.append(image)
        if len(chosen) > most:
            chosen, stride = chosen[::2], 2 * stride
    return chosen


def common_tones(by_path: Mapping[str, Tones]) -> tuple[Tones, Derived]:
    """Choose one black and one white for all images with more than 8 bits, with the reason.

    Args:
        by_path: Path -> tones of the image alone; at least one.
    """
    whole = reduce(or_, by_path.values())
    count = sum(tones == whole for tones in by_path.values())
    reason = f"{len(by_path)} images have more than 8 bits per channel, {count} use this range"
    return whole, Derived(whole.depth or str(whole), reason)


def _sides(image: Sample) -> tuple[int, int] | str:
    return image_file.or_reason(lambda: opened(image.read()).size)
