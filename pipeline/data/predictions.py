"""A model's predictions, on disk.

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

from pipeline.data import tasks
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Facts, Outputs, Region, Task
from pipeline.storage import progress, tables

FILE = "predictions.parquet"
TABLE = "predictions.csv"
COLUMNS_MOST = 20
"""With more classes, predictions.csv only has the most probable ones of each image."""

_FIRST = 5
_VALUES = 4_000_000
_IDENTITY = ("path", "label", "prediction")
TRUST = ("known", "typicality")
"""Columns that say how reliable an answer is, followed by those of the task's region."""
_BETWEEN = " | "
"""Separator of several labels in csv."""


@dataclass(frozen=True)
class Trust:
    """Reliability of a classifier's answers.

    Attributes:
        typicality: (N,) fraction of validation images that are at least as unusual.
        known: (N,) False for images flagged as unknown.
        regions: Region of each image, such as a prediction set; None without calibration images.
        positions: (N, d) reduced features.
        decided: The N predictions, as labels.
    """

    typicality: NDArray[np.float64]
    known: NDArray[np.bool_]
    regions: list[Region] | None
    positions: NDArray[np.float64]
    decided: list[str]


@dataclass(frozen=True)
class Predictions:
    """Predictions for labelled images.

    Attributes:
        paths: Paths of the N images.
        labels: Their N labels.
        decided: The N predictions, as labels.
        task: What is predicted.
        classes: K names.
        probabilities: (N, K) outputs.
    """

    paths: tuple[str, ...]
    labels: list[str]
    decided: list[str]
    task: Task
    classes: list[str]
    probabilities: Outputs

    def of(self, chosen: Sequence[bool], classes: list[str]) -> Predictions:
        """Select some images, in terms of other classes: 0 for those that the model lacks."""
        rows = np.flatnonzero(chosen)
        ordered = np.zeros((len(rows), len(classes)), np.float32)
        ordered[:, [classes.index(name) for name in self.classes]] = self.probabilities[rows]
        paths, labels, decided = (
            [values[row] for row in rows] for values in (self.paths, self.labels, self.decided)
        )
        return Predictions(tuple(paths), labels, decided, self.task, classes, ordered)

    def facts(self, desc: str = "") -> Facts:
        """Gather what metrics need; `desc` names a progress bar."""
        targets, decided = (
            self.task.targets(labels, self.classes) for labels in (self.labels, self.decided)
        )
        return self.task.facts(targets, self.probabilities, decided, desc)


def write(
    folder: Path,
    data: Manifest,
    rows: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    trust: Trust,
) -> None:
    """Write both files for (N,) rows and their (N, K) outputs, a few rows at a time."""
    import pyarrow as pa
    from pyarrow import parquet

    classes, task = data.classes, data.task
    text, values = pa.string(), pa.list_(pa.float32())
    kind = {"labels": pa.list_(text)}
    schema = pa.schema(
        [
            *((name, text) for name in _IDENTITY),
            ("known", pa.bool_()),
            ("typicality", pa.float64()),
            *((name, kind.get(name, pa.float64())) for name in task.region),
            ("probabilities", values),
        ],
        metadata={"classes": json.dumps(classes), **tasks.recorded(task)},
    )
    step = max(1, _VALUES // len(classes))
    with (
        parquet.ParquetWriter(folder / FILE, schema, use_dictionary=list(_IDENTITY)) as file,
        (folder / TABLE).open("w", newline="", encoding="utf-8") as text_file,
        progress.bar(desc="predictions", total=len(rows)) as bar,
    ):
        lines = tables.rows_to(text_file)
        lines.writerow([tables.harmless(name) for name in _header(task, classes)])
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            part = np.asarray(probabilities[here])
            named = [data.rows[row] for row in rows[here]]
            known, typical = trust.known[here].tolist(), trust.typicality[here].tolist()
            regions = trust.regions[here] if trust.regions is not None else [None] * len(part)
            ranges = [task.ranged(region, classes) for region in regions]
            columns: list[Any] = [[row.path for row in named], [row.label for row in named]]
            columns += [trust.decided[here], known, typical]
            columns += [[fields[name] for fields in ranges] for name in task.region]
            offsets = np.arange(0, part.size + 1, len(classes), dtype=np.int32)
            flat = pa.ListArray.from_arrays(offsets, pa.array(part.ravel()))
            arrays = [pa.array(*pair) for pair in zip(columns, schema.types[:-1], strict=True)]
            file.write_table(pa.table([*arrays, flat], schema=schema))
            values_of = _probability_cells(task, part, classes)
            for *own, outputs in zip(*columns, values_of, strict=True):
                cells = [*map(cell, own), *outputs]
                lines.writerow([tables.harmless(item) for item in cells])
            bar.update(len(part))


def cell(value: Any) -> str:
    """Return a field of an answer as a cell of a csv file."""
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return _BETWEEN.join(value) if isinstance(value, list) else str(value)


def _header(task: Task, classes: list[str]) -> list[str]:
    begin = [*_IDENTITY, *TRUST, *task.region]
    if len(classes) <= COLUMNS_MOST:
        return [*begin, *task.columns(classes)]
    places = range(1, _FIRST + 1)
    return [*begin, *(f"{name}_{place}" for place in places for name in ("class", "probability"))]


def _probability_cells(task: Task, part: Outputs, classes: list[str]) -> list[list[str]]:
    """Return the outputs of each row, in full, so that they can be compared exactly."""
    if len(classes) <= COLUMNS_MOST:
        count = len(task.columns(classes))
        return [list(map(str, values[:count])) for values in part]
    first = np.argsort(-part, axis=1, kind="stable")[:, :_FIRST]
    return [
        [cell for place in places for cell in (classes[place], str(values[place]))]
        for places, values in zip(first, part, strict=True)
    ]


def read(path: Path) -> Predictions:
    """Read a predictions.parquet."""
    from pyarrow import parquet

    table = parquet.read_table(path)
    metadata = table.schema.metadata
    classes = json.loads(metadata[b"classes"])
    task = tasks.named(metadata.get(b"task", tasks.DEFAULT.encode()).decode())
    paths, labels, decided = (table.column(name).to_pylist() for name in _IDENTITY)
    flat = table.column("probabilities").combine_chunks().flatten().to_numpy()
    probabilities = flat.reshape(-1, len(classes))
    return Predictions(tuple(paths), labels, decided, task, classes, probabilities)
