"""The label file that `label` writes: its columns, and which of its images are for testing.

The images that are most worth a label are harder than most, so they cannot say how good a model
is. A fixed fifth of every folder is held out from them and labelled in random order.
"""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress

COLUMNS = ("path", "label", "time", "seconds")
"""The last line about an image counts."""
HELD_OUT = 5
"""One in this many images is held out."""


def torn(content: bytes) -> bytes:
    """Return the last line of a label file if it was not written to its end; else nothing."""
    last = content[content.rfind(b"\n") + 1 :]
    cells: list[str] = []
    with suppress(csv.Error):  # no csv file at all
        cells = next(csv.reader([last.decode("utf-8", "replace")]), [])
    whole = len(cells) == len(COLUMNS) and re.fullmatch(r"\d+\.\d", cells[-1])
    return b"" if whole else last


def held_out(paths: Sequence[str]) -> list[int]:
    """List the places of the images that are held out, in the order in which they are labelled."""
    ranks = [_rank(path) for path in paths]
    places = [place for place, rank in enumerate(ranks) if rank[0] < 256 // HELD_OUT]
    return sorted(places, key=lambda place: ranks[place])


def test_images(labels: Mapping[str, str]) -> set[str]:
    """Choose the test split: images that were held out, and at least one of each class.

    A class of three or more images keeps two to train on and to choose by.

    Args:
        labels: Path -> label.
    """
    classes: dict[str, list[str]] = defaultdict(list)
    for path in sorted(labels, key=_rank):
        classes[labels[path]].append(path)
    chosen: set[str] = set()
    for paths in classes.values():
        count = max(1, len(held_out(paths)))
        chosen.update(paths[: min(count, max(1, len(paths) - 2))])
    return chosen


def _rank(path: str) -> bytes:
    """Return the sort key of a random order that is always the same."""
    return hashlib.sha256(path.encode()).digest()
