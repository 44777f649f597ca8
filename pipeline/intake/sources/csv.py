"""A csv file with the columns path, label and, if it likes, split and further ones.

csv -> pictures. Paths are relative to the csv file's folder. Metrics are told by each
value of a further column, too.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.manifest import COLUMNS
from pipeline.errors import InputError
from pipeline.intake.sources import Picture, SourceConfig
from pipeline.intake.sources.folder import SPLIT_NAMES
from pipeline.settings import setting

_COLUMNS = ("path", "label", "split")


@dataclass
class Config(SourceConfig):
    """A csv file: `path`."""

    kind: str = "csv"
    splits: dict[str, str] = setting({}, "Renames given splits, such as {val: test}.")


def pictures(config: Config) -> Iterator[Picture]:
    """Yield the pictures that a csv file lists.

    Raises:
        InputError: The file or a column is missing, or a split has another name.
    """
    path = Path(config.path)
    if not path.is_file():
        raise InputError(f"data path must be a csv file, got {path}: set data.path to the file")
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        missing = {"path", "label"} - set(table.fieldnames or ())
        if missing:
            raise InputError(
                f"{path} needs a header with the columns path and label, got "
                f"{table.fieldnames or 'an empty file'}: add {', '.join(sorted(missing))}"
            )
        further = [name for name in table.fieldnames or () if name not in _COLUMNS]
        taken = sorted({"", *COLUMNS} & set(further))
        if taken:
            raise InputError(
                f"{path} may have further columns, but not named {taken[0]!r}: rename it"
            )
        seen: set[str] = set()
        for number, row in enumerate(table, start=2):
            if not row["path"] or not row["label"]:
                raise InputError(f"{path} line {number} needs a path and a label, got {row}")
            if row["path"] in seen:
                raise InputError(f"{path} line {number} lists {row['path']} again: remove it")
            seen.add(row["path"])
            split = _split(row.get("split") or "", config.splits, f"{path} line {number}")
            extra = {name: row[name] or "" for name in further}
            yield Picture(row["path"], row["label"], split, path.parent / row["path"], extra=extra)


def _split(name: str, renames: dict[str, str], where: str) -> str | None:
    if not name:
        return None
    split = SPLIT_NAMES.get(name.lower())
    split = renames.get(split, split) if split else None
    if split not in ("train", "val", "test"):
        raise InputError(f"{where}: split must be train, val, test or empty, got {name!r}")
    return split
