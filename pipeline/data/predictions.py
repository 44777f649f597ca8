"""What a classifier said of images, on disk.

probabilities -> predictions.parquet (all of them) and predictions.csv (to look at); back again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.storage import tables

FILE = "predictions.parquet"
TABLE = "predictions.csv"
COLUMNS_MOST = 20
"""With more classes, predictions.csv has the most probable ones of each image alone."""

_FIRST = 5
_VALUES = 4_000_000
_GIVEN = ("path", "label", "predicted")
TRUST = ("known", "typicality", "labels")
"""Columns that tell how far an answer can be relied on."""
_BETWEEN = " | "
"""Labels of a set in a csv file."""


@dataclass(frozen=True)
class Trust:
    """How far a classifier's answers can be relied on.

    Attributes:
        typicality: (N,) share of validation images that are at least as strange.
        known: (N,) whether that is enough.
        sets: Of each image, the places of the labels that may be true; None without
            calibration images.
        positions: (N, d) where the images lie, as the classifier sees them.
    """

    typicality: NDArray[np.float64]
    known: NDArray[np.bool_]
    sets: Sequence[NDArray[np.int64]] | None
    positions: NDArray[np.float64]

    def named(self, row: int, classes: Sequence[str]) -> list[str] | None:
        """The set of an image, by the classes' names."""
        return None if self.sets is None else [classes[place] for place in self.sets[row]]


@dataclass(frozen=True)
class Predictions:
    """What a classifier said.

    Attributes:
        paths: Of N images.
        labels: (N,) class indices.
        classes: K names.
        probabilities: (N, K).
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: list[str]
    probabilities: NDArray[np.float32]


def write(
    folder: Path,
    data: Manifest,
    rows: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    trust: Trust,
) -> None:
    """Write both files, a few rows at a time.

    Args:
        folder: That they go to.
        data: The prepared data set.
        rows: (N,) which images.
        probabilities: (N, K), memory-mapped or not.
        trust: How far they can be relied on.
    """
    import pyarrow as pa
    from pyarrow import parquet

    classes = data.classes
    text, values = pa.string(), pa.list_(pa.float32())
    schema = pa.schema(
        [
            *((name, text) for name in _GIVEN),
            ("known", pa.bool_()),
            ("typicality", pa.float64()),
            ("labels", pa.list_(text)),
            ("probabilities", values),
        ],
        metadata={"classes": json.dumps(classes)},
    )
    step = max(1, _VALUES // len(classes))
    with (
        parquet.ParquetWriter(folder / FILE, schema, use_dictionary=list(_GIVEN)) as file,
        (folder / TABLE).open("w", newline="", encoding="utf-8") as text_file,
        tqdm(
            total=len(rows), desc="predictions", unit="image", delay=1, leave=False, disable=None
        ) as bar,
    ):
        lines = tables.rows_to(text_file)
        lines.writerow([tables.harmless(name) for name in _header(classes)])
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            part = np.asarray(probabilities[here])
            named = [data.rows[row] for row in rows[here]]
            predicted = [classes[place] for place in part.argmax(axis=1)]
            sets = [trust.named(row, classes) for row in range(start, start + len(part))]
            known, typical = trust.known[here].tolist(), trust.typicality[here].tolist()
            columns: list[Any] = [[row.path for row in named], [row.label for row in named]]
            columns += [predicted, known, typical, sets]
            offsets = np.arange(0, part.size + 1, len(classes), dtype=np.int32)
            flat = pa.ListArray.from_arrays(offsets, pa.array(part.ravel()))
            arrays = [pa.array(*one) for one in zip(columns, schema.types[:-1], strict=True)]
            file.write_table(pa.table([*arrays, flat], schema=schema))
            told = [told_of(*one) for one in zip(known, typical, sets, strict=True)]
            for given, how, further in zip(
                zip(*columns[: len(_GIVEN)], strict=True),
                told,
                _further(part, classes),
                strict=True,
            ):
                lines.writerow([tables.harmless(cell) for cell in (*given, *how, *further)])
            bar.update(len(part))


def told_of(
    known: bool | None, typicality: float | None, labels: Sequence[str] | None
) -> list[str]:
    """An image's cells of the columns `TRUST` in a csv file."""
    return [
        "" if known is None else "yes" if known else "no",
        "" if typicality is None else str(typicality),
        _BETWEEN.join(labels or ()),
    ]


def columns_of(classes: Sequence[str]) -> list[str]:
    """Columns of the probabilities: with a prefix, or a class `path` would be another column."""
    return [f"probability_{name}" for name in classes]


def _header(classes: list[str]) -> list[str]:
    if len(classes) <= COLUMNS_MOST:
        return [*_GIVEN, *TRUST, *columns_of(classes)]
    places = range(1, _FIRST + 1)
    return [
        *_GIVEN,
        *TRUST,
        *(f"{name}_{place}" for place in places for name in ("class", "probability")),
    ]


def _further(part: NDArray[np.float32], classes: list[str]) -> list[list[str]]:
    """What predictions.csv says of each row beside its label and the prediction."""
    # Probabilities in full, so that they can be compared exactly.
    if len(classes) <= COLUMNS_MOST:
        return [list(map(str, values)) for values in part]
    first = np.argsort(-part, axis=1, kind="stable")[:, :_FIRST]
    return [
        [cell for place in places for cell in (classes[place], str(values[place]))]
        for places, values in zip(first, part, strict=True)
    ]


def read(path: Path) -> Predictions:
    """Read a predictions.parquet."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    classes = json.loads(table.schema.metadata[b"classes"])
    paths, labels = (table.column(name).to_pylist() for name in ("path", "label"))
    flat = table.column("probabilities").combine_chunks().flatten().to_numpy()
    probabilities = flat.reshape(-1, len(classes))
    places = {name: place for place, name in enumerate(classes)}
    known = np.array([places[label] for label in labels], dtype=np.int64)
    return Predictions(tuple(paths), known, classes, probabilities)
