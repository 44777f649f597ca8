"""Tables and JSON whose bytes depend only on their values.

Cells that a spreadsheet would take for a formula, such as the class `=1+1`, are written with a
leading apostrophe, and read without it.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

_BEGINNINGS = frozenset("=+-@\t\r'")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def write_json(path: Path, value: object) -> None:
    """Write JSON whose bytes depend only on the value."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a csv file whose bytes are the same on every platform."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = rows_to(file)
        writer.writerow([harmless(name) for name in columns])
        writer.writerows([harmless(cell) for cell in line] for line in lines)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read columns and lines of a csv file from `write_table` or a spreadsheet."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *lines = [[_original(cell) for cell in line] for line in csv.reader(file)]
    return header, lines


def read_records(path: Path) -> list[dict[str, str]]:
    """Read a csv file from `write_table` as one mapping per line."""
    header, lines = read_table(path)
    return [dict(zip(header, line, strict=True)) for line in lines]


def rows_to(file: TextIO) -> Any:
    """Return a csv writer with the same line ends on every platform."""
    return csv.writer(file, lineterminator="\n")


def harmless(cell: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    if not isinstance(cell, str) or cell[:1] not in _BEGINNINGS:  # nearly every cell
        return cell
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def _original(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
