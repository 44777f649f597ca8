"""The split manifest: which image has which label, in which split, at which row.

manifest.csv + images.npy + classes.txt <-> `Manifest`. Knows nothing of sources or Keras.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.decoding import Decoding
from pipeline.data.image_file import Pixels
from pipeline.errors import InputError
from pipeline.storage.tables import read_table, write_table


class Split(StrEnum):
    """What an image is used for."""

    train = "train"
    val = "val"
    test = "test"


SPLITS = tuple(split.value for split in Split)
CALIBRATION = "calibration"
"""A fourth split, which only `prepare.calibration_fraction` makes: training never sees it."""

KEPT = ("ok", "duplicate")
"""The verdicts whose images have a row in images.npy."""


@dataclass(frozen=True)
class Row:
    """One image of the data set.

    `verdict` is `ok`, `duplicate` (same pixels as an earlier image of its split,
    kept) or `quarantined` (not used; the reason is in quarantine.csv). `extra` has
    what else the source says of it, by column.

    While a data set is prepared, `group` is what must not be torn apart by splits, and
    `pixels` the digest of the decoded image; neither is written.
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
COLUMNS = [one.name for one in dataclasses.fields(Row) if one.name not in _UNWRITTEN]
"""Those of every manifest.csv; what else the source says follows."""


class Manifest:
    """A prepared data set, opened for reading.

    Args:
        folder: Output of the prepare stage.

    Attributes:
        classes: Class names, sorted; a label's index is its place here.
        images: (N, size, size, 3) uint8 RGB, memory-mapped.
        decoding: How files became these pixels.
        images_sha256: Digest of the decoded images.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "manifest.csv").exists():
            raise InputError(f"{folder} holds no manifest.csv: run the prepare stage first")
        self._path = folder / "manifest.csv"
        self.classes = read_classes(folder / "classes.txt")
        self.images: Pixels = np.load(folder / "images.npy", mmap_mode="r")
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        self.decoding = Decoding.from_json(summary["decoding"])
        self.images_sha256: str = summary["images_sha256"]

    @cached_property
    def rows(self) -> list[Row]:
        """The kept images, in the order of `images`; reading very many takes seconds."""
        return [row for row in read_rows(self._path) if row.verdict in KEPT]

    @property
    def columns(self) -> list[str]:
        """Names of what else is known of each, from a csv with further columns."""
        return list(self.rows[0].extra) if self.rows else []

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) class indices."""
        index = {name: place for place, name in enumerate(self.classes)}
        return np.array([index[row.label] for row in self.rows], dtype=np.int64)

    @cached_property
    def _splits(self) -> NDArray[np.str_]:
        return np.array([row.split for row in self.rows])

    def indices(self, split: str) -> NDArray[np.int64]:
        """Rows of `images` that belong to a split, ascending."""
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
    for line in tqdm(lines, path.name, unit="image", delay=1, leave=False, disable=None):
        name, label, split, sha256, width, height, verdict = line[:fixed]
        extra = dict(zip(header[fixed:], line[fixed:], strict=True))
        rows.append(Row(name, label, split, sha256, int(width), int(height), verdict, extra))
    return rows


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest.csv; all rows have the same further columns."""
    rows = list(rows)
    extra = list(rows[0].extra) if rows else []
    lines = ([getattr(row, name) for name in COLUMNS] + list(row.extra.values()) for row in rows)
    write_table(path, [*COLUMNS, *extra], lines)


def read_classes(path: Path) -> list[str]:
    """Read class names, one a line."""
    return path.read_text(encoding="utf-8").splitlines()
