"""Tables and JSON on disk whose bytes depend on their values alone."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path


def write_json(path: Path, value: object) -> None:
    """Write JSON whose bytes depend on the value alone."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a csv file whose bytes are the same on every platform."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)
