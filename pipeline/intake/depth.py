"""One black and one white for all pictures of more than 8 bits in a data set.

tones of each picture -> tones of all, in words.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_

from pipeline.data.tones import Tones
from pipeline.storage.derived import Derived


def common(found: Mapping[str, Tones]) -> Tones:
    """The tones that hold every picture.

    Args:
        found: Path -> tones of the picture alone; at least one.
    """
    return reduce(or_, found.values())


def derived(whole: Tones, found: Mapping[str, Tones]) -> Derived:
    """What `data.depth` is, and how many pictures say so."""
    count = sum(one == whole for one in found.values())
    return Derived(
        whole.depth or str(whole),
        f"{len(found)} pictures have more than 8 bits a channel, {count} of them use this range",
    )
