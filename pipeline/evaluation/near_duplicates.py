"""Images of a split that training has seen in other clothes: saved anew, resized, cropped.

features + pixels -> pairs. The backbone's features propose, the pixels decide: features alone
take two photographs of one scene for the same, and a crop of a small image for another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.evaluation.facts import Labels
from pipeline.storage import tables

FILE = "near_duplicates.csv"
ALIKE = 0.85
"""Correlation of fine detail. On photographs, hand signs and 32 px images two that are not the
same had at most 0.79; re-saved, halved, mirrored or cropped ones at least 0.90 from 96 px on."""
SMALLEST_PX = 32
"""Below, different images have too little detail to be told apart."""

_CANDIDATES = 5
_CHUNK, _OTHERS = 2048, 8192
_SIDE_PX = 48
_CUT_OFF = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""Shares of a side that a crop may have taken at each end."""
_BLUR_PX = 3


class NearDuplicates(StrEnum):
    """What becomes of them."""

    list = "list"
    drop = "drop"


@dataclass(frozen=True)
class Pair:
    """An image of the split and its like in train or val.

    Attributes:
        row: Of `Manifest.images`.
        other: Likewise.
        likeness: Correlation of their detail, up to 1.
    """

    row: int
    other: int
    likeness: float


def find(data: Manifest, features: NDArray[np.float32], rows: Labels) -> list[Pair]:
    """Look for the images of a split among those of the others.

    Args:
        data: The prepared data set.
        features: (N, D) of all its images.
        rows: Those of the split.

    Returns:
        A pair for each image that has one, with the one most like it.
    """
    others = np.setdiff1d(np.arange(len(data.rows)), rows)
    if data.image_size < SMALLEST_PX or not len(others):
        return []
    look = lru_cache(4096)(lambda row: _details(data.images[row]))
    found = []
    proposed = tqdm(
        zip(rows, nearest(features, rows, others), strict=True),
        desc="near duplicates",
        total=len(rows),
        unit="image",
        disable=None,
    )
    for row, candidates in proposed:
        likeness = [_likeness(look(int(row)), look(int(other))) for other in candidates]
        best = int(np.argmax(likeness))
        if likeness[best] >= ALIKE:
            found.append(Pair(int(row), int(candidates[best]), likeness[best]))
    return sorted(found, key=lambda pair: (-pair.likeness, pair.row))


def write(path: Path, data: Manifest, pairs: Sequence[Pair], dropped: bool) -> None:
    """Write the pairs, the most alike first."""
    lines = []
    for pair in pairs:
        one, other = data.rows[pair.row], data.rows[pair.other]
        likeness, out = f"{pair.likeness:.3f}", "yes" if dropped else "no"
        lines.append([one.path, one.label, other.path, other.label, other.split, likeness, out])
    header = ["path", "label", "like", "like_label", "like_split", "likeness", "left_out"]
    tables.write_table(path, header, lines)


def read(evaluated: Path) -> list[dict[str, str]]:
    """What `write` wrote, a pair a line, by column.

    Args:
        evaluated: Output of evaluate.
    """
    return tables.read_records(evaluated / FILE)


def left_out(evaluated: Path) -> set[str]:
    """Paths of the images that evaluate did not judge on.

    Args:
        evaluated: Output of evaluate.
    """
    return {line["path"] for line in read(evaluated) if line["left_out"] == "yes"}


def nearest(
    features: NDArray[np.float32], rows: Labels, others: Labels
) -> Iterator[NDArray[np.int64]]:
    """For each row the (few) others whose features point the same way, seen from the middle.

    Neither all features nor all products are in memory at once.
    """
    middle = _middle(features)
    count = min(_CANDIDATES, len(others))
    for start in range(0, len(rows), _CHUNK):
        asked = _directions(features[rows[start : start + _CHUNK]], middle)
        alike = np.full((len(asked), count), -np.inf, np.float32)
        nearest = np.zeros((len(asked), count), np.int64)
        for first in range(0, len(others), _OTHERS):
            some = others[first : first + _OTHERS]
            products = np.hstack([alike, asked @ _directions(features[some], middle).T])
            rows_of = np.hstack([nearest, np.broadcast_to(some, (len(asked), len(some)))])
            best = np.argpartition(-products, count - 1, axis=1)[:, :count]
            alike = np.take_along_axis(products, best, axis=1)
            nearest = np.take_along_axis(rows_of, best, axis=1)
        yield from nearest


def _middle(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of all features."""
    total = np.zeros(features.shape[1], np.float64)
    for start in range(0, len(features), _OTHERS):
        total += features[start : start + _OTHERS].sum(axis=0, dtype=np.float64)
    return (total / len(features)).astype(np.float32)


def _directions(features: NDArray[np.float32], middle: NDArray[np.float32]) -> NDArray[np.float32]:
    moved = np.asarray(features) - middle
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    directions: NDArray[np.float32] = moved / np.maximum(lengths, 1e-12)
    return directions


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The best correlation of either image with a crop or the mirror image of the other."""
    return float(max((one @ other[0]).max(), (other @ one[0]).max()))


def _details(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(2 * crops, side * side): an image's fine detail, of unit length, cropped and mirrored."""
    grey = Image.fromarray(pixels).convert("L")
    side = grey.size[0]
    found = []
    for share in _CUT_OFF:
        start, end = share * side, (1 - share) * side
        box = (start, start, end, end)
        crop = grey.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, box=box)
        found += [_detail(crop), _detail(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return np.stack(found)


def _detail(grey: Image.Image) -> NDArray[np.float32]:
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(_BLUR_PX)), dtype=np.float32)
    detail = np.asarray(grey, dtype=np.float32) - blurred
    detail = detail.ravel() - detail.mean()
    unit: NDArray[np.float32] = detail / np.float32(max(float(np.linalg.norm(detail)), 1.0))
    return unit
