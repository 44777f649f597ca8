"""How good a classifier is on parts of the pictures: by what else the source says of them.

manifest's further columns + facts -> slices.csv.
"""

from pathlib import Path

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.evaluation import resampling
from pipeline.evaluation.facts import Facts, Labels
from pipeline.storage import tables

_SLICES_MAX = 50


def write(
    path: Path,
    data: Manifest,
    rows: Labels,
    known: Facts,
    draws: int,
    seed: int,
) -> None:
    """Metrics of the pictures that share a value of a further column of the manifest.

    Args:
        path: csv to write.
        data: The prepared data set.
        rows: (N,) that were judged.
        known: Facts of them.
        draws: Of the bootstrap.
        seed: Of the draws.
    """
    lines: list[list[object]] = []
    names = ("accuracy", "macro_f1", "log_loss")
    for column in data.columns:
        values = np.array([data.rows[row].extra[column] for row in rows])
        if len(set(values)) > _SLICES_MAX:
            print(f"column {column} has more than {_SLICES_MAX} values: no metrics by it")
            continue
        for value in sorted(set(values)):
            chosen = values == value
            spread = resampling.intervals(resampling.resample(known.of(chosen), draws, seed))
            found = resampling.as_json({name: spread[name] for name in names})
            numbers = [found[name][end] for name in names for end in ("value", "low", "high")]
            lines.append([column, value, int(chosen.sum()), *numbers])
    header = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    tables.write_table(path, ["column", "value", "pictures", *header], lines)
