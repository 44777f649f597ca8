"""Find the files named on a command line."""

import csv
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import InputError


def find(paths: Sequence[str]) -> Iterator[Path]:
    """Yield files: named, in named folders, matching, or listed; hidden ones only if named.

    Args:
        paths: Files, folders, patterns, csv files with a column `path`, or - for standard input.

    Raises:
        InputError: A csv file has no such column.
    """
    for name in paths:
        path = Path(name)
        if name == "-":
            yield from find([line for line in sys.stdin.read().splitlines() if line])
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = file.relative_to(path).parts
                if file.is_file() and not any(part.startswith(".") for part in inside):
                    yield file
        elif path.suffix.lower() == ".csv" and path.is_file():
            yield from _listed(path)
        elif not path.exists() and glob.has_magic(name):
            # Path.glob does not take absolute patterns.
            yield from find(sorted(glob.glob(name, recursive=True)))  # noqa: PTH207
        else:
            yield path


def _listed(path: Path) -> Iterator[Path]:
    """Yield the files in the column `path` of a csv file, relative to it."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if "path" not in (table.fieldnames or ()):
            raise InputError(f"{path} needs a column path, got {table.fieldnames}")
        for row in table:
            yield path.parent / row["path"]
