"""A classifier's predictions, on disk.

probabilities -> predictions.parquet (all of them) and predictions.csv (for people), and back.
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
"""With more classes, predictions.csv only has the most probable ones of each image."""

_FIRST = 5
_VALUES = 4_000_000
_IDENTITY = ("path", "label", "prediction")
TRUST = ("known", "typicality", "labels")
"""Columns that say how reliable an answer is."""
_BETWEEN = " | "
"""Separator of a prediction set's labels in csv."""


@dataclass(frozen=True)
class Trust:
    """Reliability of a classifier's answers.

    Attributes:
        typicality: (N,) fraction of validation images that are at least as unusual.
        known: (N,) False for images flagged as unknown.
        sets: Prediction set of each image, as class indices; None without calibration images.
        positions: (N, d) reduced features.
    """

    typicality: NDArray[np.float64]
    known: NDArray[np.bool_]
    sets: Sequence[NDArray[np.int64]] | None
    positions: NDArray[np.float64]

    def named(self, row: int, classes: Sequence[str]) -> list[str] | None:
        """Return an image's prediction set as class names."""
        return None if self.sets is None else [classes[place] for place in self.sets[row]]


@dataclass(frozen=True)
class Predictions:
    """Predictions for labelled images.

    Attributes:
        paths: Paths of the N images.
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
        folder: Output folder.
        data: The prepared dataset.
        rows: (N,) rows of the images.
        probabilities: (N, K), memory-mapped or not.
        trust: Reliability of each answer.
    """
    import pyarrow as pa
    from pyarrow import parquet

    classes = data.classes
    text, values = pa.string(), pa.list_(pa.float32())
    schema = pa.schema(
        [
            *((name, text) for name in _IDENTITY),
            ("known", pa.bool_()),
            ("typicality", pa.float64()),
            ("labels", pa.list_(text)),
            ("probabilities", values),
        ],
        metadata={"classes": json.dumps(classes)},
    )
    step = max(1, _VALUES // len(classes))
    with (
        parquet.ParquetWriter(folder / FILE, schema, use_dictionary=list(_IDENTITY)) as file,
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
            arrays = [pa.array(*pair) for pair in zip(columns, schema.types[:-1], strict=True)]
            file.write_table(pa.table([*arrays, flat], schema=schema))
            reliability = [trust_cells(*cells) for cells in zip(known, typical, sets, strict=True)]
            for identity, trusted, values_of in zip(
                zip(*columns[: len(_IDENTITY)], strict=True),
                reliability,
                _probability_cells(part, classes),
                strict=True,
            ):
                cells = (*identity, *trusted, *values_of)
                lines.writerow([tables.harmless(cell) for cell in cells])
            bar.update(len(part))


def trust_cells(
    known: bool | None, typicality: float | None, labels: Sequence[str] | None
) -> list[str]:
    """Return an image's cells for the columns `TRUST` of a csv file."""
    return [
        "" if known is None else "yes" if known else "no",
        "" if typicality is None else str(typicality),
        _BETWEEN.join(labels or ()),
    ]


def columns_of(classes: Sequence[str]) -> list[str]:
    """Name the columns of the probabilities; the prefix avoids clashes with a class `path`."""
    return [f"probability_{name}" for name in classes]


def _header(classes: list[str]) -> list[str]:
    if len(classes) <= COLUMNS_MOST:
        return [*_IDENTITY, *TRUST, *columns_of(classes)]
    places = range(1, _FIRST + 1)
    return [
        *_IDENTITY,
        *TRUST,
        *(f"{name}_{place}" for place in places for name in ("class", "probability")),
    ]


def _probability_cells(part: NDArray[np.float32], classes: list[str]) -> list[list[str]]:
    """Return the probabilities of each row, in full, so that they can be compared exactly."""
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
    indices = np.array([places[label] for label in labels], dtype=np.int64)
    return Predictions(tuple(paths), indices, classes, probabilities)
