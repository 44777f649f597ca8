"""Learning curves on disk: history.csv, one line per epoch."""

import csv
from collections.abc import Iterable
from pathlib import Path

from pipeline.storage.tables import write_table

Curve = list[dict[str, float]]
COLUMNS = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "val_score")


def write(path: Path, curve: Iterable[dict[str, float]]) -> None:
    """Write a curve."""
    write_table(path, COLUMNS, [[entry[name] for name in COLUMNS] for entry in curve])


def read(folder: Path) -> Curve:
    """Read the curve in a training stage's output."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in line.items()} for line in csv.DictReader(file)
        ]
