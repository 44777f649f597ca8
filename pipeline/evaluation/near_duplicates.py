"""Find near duplicates of training images in a split: re-saved, resized or cropped copies.

features + pixels -> pairs. Features of the backbone propose candidates, pixels decide: features
alone confuse two photographs of one scene, and miss a crop of a small image.
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

from pipeline.data import tasks
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Task
from pipeline.data.tasks.facts import Floats, Labels
from pipeline.storage import tables

FILE = "near_duplicates.csv"
MIN_SIMILARITY = 0.85
"""Correlation of fine detail. On photographs, hand signs and 32 px images, different images had at
most 0.79; re-saved, halved, mirrored or cropped ones at least 0.90 from 96 px on."""
SMALLEST_PX = 32
"""Below, different images have too little detail to be distinguished."""

_CANDIDATES = 5
_CHUNK, _OTHERS = 2048, 8192
_SIDE_PX = 48
_CUT_OFF = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
"""Fractions of a side that a crop may have removed at each end."""
_BLUR_PX = 3


class NearDuplicates(StrEnum):
    """Treatment of near duplicates."""

    list = "list"
    drop = "drop"


@dataclass(frozen=True)
class Pair:
    """An image of the split and its near duplicate in another split.

    Attributes:
        row: Row of `Manifest.images`.
        other: Likewise.
        similarity: Correlation of their detail, up to 1.
    """

    row: int
    other: int
    similarity: float


def find(data: Manifest, features: NDArray[np.float32], rows: Labels) -> list[Pair]:
    """Find the images of a split that have a near duplicate in other splits.

    There is a pair for each, with the most similar other image. `features` are of all images.
    """
    others = np.setdiff1d(np.arange(len(data.rows)), rows)
    if data.image_size < SMALLEST_PX or not len(others):
        return []
    look = lru_cache(4096)(lambda row: _details(data.images[row]))
    pairs = []
    proposed = tqdm(
        zip(rows, nearest(features, rows, others), strict=True),
        desc="near duplicates",
        total=len(rows),
        unit="image",
        disable=None,
    )
    for row, candidates in proposed:
        similarity = [_similarity(look(int(row)), look(int(other))) for other in candidates]
        best = int(np.argmax(similarity))
        if similarity[best] >= MIN_SIMILARITY:
            pairs.append(Pair(int(row), int(candidates[best]), similarity[best]))
    return sorted(pairs, key=lambda pair: (-pair.similarity, pair.row))


def write(path: Path, data: Manifest, pairs: Sequence[Pair], dropped: bool) -> None:
    """Write the pairs, the most similar first."""
    lines = []
    for pair in pairs:
        image, other = data.rows[pair.row], data.rows[pair.other]
        end = [f"{pair.similarity:.3f}", "yes" if dropped else "no"]
        lines.append([image.path, image.label, other.path, other.label, other.split, *end])
    header = ["path", "label", "duplicate_of", "duplicate_label", "duplicate_split"]
    tables.write_table(path, [*header, "similarity", "dropped"], lines)


def sentence(
    split: str, dropped: bool, pairs: list[Pair], rows: Labels, wrong: Floats, task: Task
) -> str:
    """Say how many of the (N,) evaluated rows have a near duplicate, and how good the rest is.

    `wrong` is (N,), as in `Facts`.
    """
    text = f"{len(pairs)} {split} images are nearly the same as a training image"
    if dropped:
        return f"{text}: dropped"
    other = ~np.isin(rows, [pair.row for pair in pairs])
    each = wrong if tasks.lower_is_better(task.each) else 1 - wrong
    name = task.each.replace("_", " ")
    without = f": {name} without them {tasks.digits(each[other].mean())}" if other.any() else ""
    return f"{text} (evaluate/{FILE}){without}"


def dropped_paths(evaluated: Path) -> set[str]:
    """Return the paths of the images that evaluate dropped, from its output."""
    lines = tables.read_records(evaluated / FILE)
    return {line["path"] for line in lines if line["dropped"] == "yes"}


def nearest(
    features: NDArray[np.float32], rows: Labels, others: Labels
) -> Iterator[NDArray[np.int64]]:
    """Yield for each row the few others with the most similar features, relative to the mean.

    Neither all features nor all products are in memory at once.
    """
    middle = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    count = min(_CANDIDATES, len(others))
    for start in range(0, len(rows), _CHUNK):
        directions = _directions(features[rows[start : start + _CHUNK]], middle)
        similar = np.full((len(directions), count), -np.inf, np.float32)
        nearest = np.zeros((len(directions), count), np.int64)
        for first in range(0, len(others), _OTHERS):
            some = others[first : first + _OTHERS]
            products = np.hstack([similar, directions @ _directions(features[some], middle).T])
            rows_of = np.hstack([nearest, np.broadcast_to(some, (len(directions), len(some)))])
            best = np.argpartition(-products, count - 1, axis=1)[:, :count]
            similar = np.take_along_axis(products, best, axis=1)
            nearest = np.take_along_axis(rows_of, best, axis=1)
        yield from nearest


def _directions(features: NDArray[np.float32], middle: NDArray[np.float32]) -> NDArray[np.float32]:
    moved = np.asarray(features) - middle
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    directions: NDArray[np.float32] = moved / np.maximum(lengths, 1e-12)
    return directions


def _similarity(details: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the best correlation of either image with a crop or mirror image of the other."""
    return float(max((details @ other[0]).max(), (other @ details[0]).max()))


def _details(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Extract an image's fine detail, unit length, cropped and mirrored: (2 * crops, side**2)."""
    grey = Image.fromarray(pixels).convert("L")
    side = grey.size[0]
    details = []
    for share in _CUT_OFF:
        start, end = share * side, (1 - share) * side
        box = (start, start, end, end)
        crop = grey.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, box=box)
        details += [_detail(crop), _detail(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    return np.stack(details)


def _detail(grey: Image.Image) -> NDArray[np.float32]:
    blurred = np.asarray(grey.filter(ImageFilter.GaussianBlur(_BLUR_PX)), dtype=np.float32)
    detail = np.asarray(grey, dtype=np.float32) - blurred
    detail = detail.ravel() - detail.mean()
    unit: NDArray[np.float32] = detail / np.float32(max(float(np.linalg.norm(detail)), 1.0))
    return unit
