"""The manifest: label, split and row of every image.

manifest.csv + images.npy + classes.txt <-> `Manifest`. Independent of sources and Keras.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data import tasks
from pipeline.data.decoding import Decoding
from pipeline.data.image_file import Pixels
from pipeline.data.tasks import Targets
from pipeline.errors import InputError
from pipeline.storage import progress
from pipeline.storage.tables import read_json, read_table, write_table


class Split(StrEnum):
    """Purpose of an image."""

    train = "train"
    val = "val"
    test = "test"


SPLITS = tuple(split.value for split in Split)
CALIBRATION = "calibration"
"""Fourth split, created by `prepare.calibration_fraction` and never used for training."""

KEPT = ("ok", "duplicate")
"""Verdicts of images that have a row in images.npy."""


@dataclass(frozen=True)
class Row:
    """One image of the dataset.

    `verdict` is `ok`, `duplicate` (same pixels as an earlier image of its split, still used) or
    `quarantined` (not used; quarantine.csv has the reason). `extra` holds further columns of the
    source.

    During preparation, `group` is a set of images that splits must not separate, and `pixels` the
    digest of the decoded image; neither is written.
    """

    path: str
    label: str
    split: str
    sha256: str
    width: int
    height: int
    verdict: str
    extra: dict[str, str] = field(default_factory=dict)
    group: str = ""
    pixels: str = ""


_UNWRITTEN = ("extra", "group", "pixels")
COLUMNS = [column.name for column in dataclasses.fields(Row) if column.name not in _UNWRITTEN]
"""Columns of every manifest.csv; further columns of the source follow."""


class Manifest:
    """A prepared dataset, opened for reading.

    Args:
        folder: Output of the prepare stage.

    Attributes:
        task: What is predicted.
        classes: Sorted class names; a label's index is its position here. For numbers, the name of
            their column.
        images: (N, size, size, 3) uint8 RGB, memory-mapped.
        decoding: Settings the images were decoded with.
        images_sha256: Digest of the decoded images.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "manifest.csv").exists():
            raise InputError(f"no manifest.csv in {folder}: run the prepare stage first")
        self._path = folder / "manifest.csv"
        self.classes = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
        self.images: Pixels = np.load(folder / "images.npy", mmap_mode="r")
        summary = read_json(folder / "summary.json")
        self.task = tasks.named(summary.get("task", tasks.DEFAULT))
        self.decoding = Decoding.from_json(summary["decoding"])
        self.images_sha256: str = summary["images_sha256"]

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of `images`, in order; reading very many takes seconds."""
        return [row for row in read_rows(self._path) if row.verdict in KEPT]

    @cached_property
    def targets(self) -> Targets:
        """(N,) class indices, or (N, K) numbers."""
        return self.task.targets([row.label for row in self.rows], self.classes)

    @cached_property
    def strata(self) -> NDArray[np.int64]:
        """(N,) groups that each split should have its share of."""
        kinds = self.task.strata([row.label for row in self.rows])
        groups: NDArray[np.int64] = np.unique(kinds, return_inverse=True)[1]
        return groups

    @cached_property
    def _splits(self) -> NDArray[np.str_]:
        return np.array([row.split for row in self.rows])

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the rows of `images` in a split, ascending."""
        return np.flatnonzero(self._splits == split)

    @property
    def image_size(self) -> int:
        """Side of the images in px."""
        return int(self.images.shape[1])


def read_rows(path: Path) -> list[Row]:
    """Read every row of a manifest.csv, quarantined images included."""
    header, lines = read_table(path)
    fixed = len(COLUMNS)
    rows = []
    for line in progress.bar(lines, path.name):
        name, label, split, sha256, width, height, verdict = line[:fixed]
        extra = dict(zip(header[fixed:], line[fixed:], strict=True))
        rows.append(Row(name, label, split, sha256, int(width), int(height), verdict, extra))
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest.csv; all rows must have the same further columns."""
    rows = list(rows)
    extra = list(rows[0].extra) if rows else []
    lines = ([getattr(row, name) for name in COLUMNS] + list(row.extra.values()) for row in rows)
    write_table(path, [*COLUMNS, *extra], lines)
