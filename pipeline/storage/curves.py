"""Learning curves on disk: history.csv, one line per epoch."""

from collections.abc import Iterable
from pathlib import Path

from pipeline.storage.tables import read_records, write_table

Curve = list[dict[str, float]]


def write(path: Path, curve: Iterable[dict[str, float]], quality: str) -> None:
    """Write a curve; `quality` is its metric besides the loss, such as accuracy."""
    columns = ("epoch", "loss", quality, "val_loss", f"val_{quality}", "val_score")
    write_table(path, columns, [[entry[name] for name in columns] for entry in curve])


def read(folder: Path) -> Curve:
    """Read the curve in a training stage's output."""
    lines = read_records(folder / "history.csv")
    return [{name: float(value) for name, value in line.items()} for line in lines]
