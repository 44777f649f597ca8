"""A csv file with the columns path, label and, if it likes, split and further ones.

csv -> images. Paths are relative to the csv file's folder. Metrics are told by each
value of a further column, too.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data import names
from pipeline.data.manifest import COLUMNS
from pipeline.errors import InputError
from pipeline.intake.layout import split_of
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.settings import setting
from pipeline.storage import addresses

_COLUMNS = ("path", "label", "split")
_DELIMITERS = (",", ";", "\t")
_SEPARATORS = ("|", ";", ",", "+", "/", "&", " ")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Config(SourceConfig):
    """A csv file: `path`."""

    kind: str = "csv"
    splits: dict[str, str] = setting({}, "Renames given splits, such as {val: test}.")
    encoding: str = setting("utf-8", "Of the text, such as cp1252 for old files of Excel.")
    group: str | None = setting(
        None, "A further column, such as patient, whose images come into one split together."
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images that a csv file lists.

    Raises:
        InputError: The file or a column is missing, a line has not the header's cells, or
            a split has another name.
    """
    path = Path(config.path)
    if not path.is_file():
        raise InputError(f"data path must be a csv file, got {path}: set data.path to the file")
    table = csv.reader(_lines(path, config.encoding), delimiter=_delimiter(path, config.encoding))
    header = next(table, [])
    further = _further(path, header)
    if config.group is not None and config.group not in further:
        raise InputError(
            f"data.group must be a further column of {path}, got {config.group!r}: it has "
            f"{', '.join(further) or 'none'}"
        )
    rows: dict[str, Sample] = {}
    for cells in _cells(path, table):
        where = f"{path} line {table.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        row = _row(where, header, cells)
        if row["path"] in rows:
            raise InputError(f"{where} lists {row['path']} again: remove it")
        if _ADDRESS.match(row["path"]):
            raise InputError(
                f"{where}: a path must be a file on this machine, got the address "
                f"{addresses.shown(row['path'])}: download the images, and list their files"
            )
        split = _split(row.get("split", ""), config.splits, where)
        label = _label(where, row["label"])
        file = _file(path.parent, row["path"])
        extra = {name: row[name] for name in further}
        group = row[config.group] if config.group else ""
        rows[row["path"]] = Sample(
            names.shown(row["path"]), label, split, file, extra=extra, group=group
        )
    _refuse_several(path, {image.label for image in rows.values()} - set(config.labels))
    yield from rows.values()


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """The file's lines, decoded; a mark of the byte order is left out."""
    content = path.read_bytes()
    if content.startswith(_UTF16):
        encoding = "utf-16"
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} must be {error.encoding} text, line {line} is not: save it as UTF-8, or set "
            "data.encoding=cp1252 (or what it was written in)"
        ) from error
    except LookupError as error:
        raise InputError(
            f"data.encoding must be one that Python knows, got {encoding}: utf-8 or cp1252, say"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path} line {line} holds a null byte: is it a csv file?")
    return iter(text.splitlines(keepends=True))


def _delimiter(path: Path, encoding: str) -> str:
    """What the header's cells are told apart by: not everywhere a comma."""
    first = next(_lines(path, encoding), "")
    return max(_DELIMITERS, key=lambda one: (first.count(one), one == ","))


def _further(path: Path, header: list[str]) -> list[str]:
    missing = {"path", "label"} - set(header)
    if missing:
        raise InputError(
            f"{path} needs a header with the columns path and label, got "
            f"{header or 'an empty file'}: add {', '.join(sorted(missing))}"
        )
    further = [name for name in header if name not in _COLUMNS]
    taken = sorted({"", *COLUMNS} & set(further))
    if taken:
        raise InputError(f"{path} may have further columns, but not named {taken[0]!r}: rename it")
    return further


def _row(where: str, header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise InputError(
            f"{where} must have {len(header)} cells like the header, got {len(cells)}: put a path "
            f'or label that holds the delimiter in quotes, "{cells[0]} ..."'
        )
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if not row["path"] or not row["label"]:
        raise InputError(f"{where} needs a path and a label, got {row}")
    return row


def _label(where: str, text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InputError(
            f"{where}: a label must be one line of text, got {names.shown(text)}: is a quote "
            "missing before it?"
        )
    return names.label(text)


def _cells(path: Path, table: Any) -> Iterator[list[str]]:
    """The lines of a table."""
    try:
        yield from table
    except csv.Error as error:
        raise InputError(
            f"{path} line {table.line_num} is no line of csv ({error}): is a quote missing?"
        ) from error


def _refuse_several(path: Path, labels: set[str]) -> None:
    """Stop at labels such as `cat|dog`; those that data.labels renames are meant as they are."""
    for label in sorted(labels):
        if label.startswith("[") and label.endswith("]"):
            raise InputError(
                f"{path} must have one label for an image, got a list, {label!r}: keep one"
            )
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(parts) and (separator == "|" or set(parts) <= labels):
                raise InputError(
                    f"{path} must have one label for an image, got several, {label!r}: keep one of "
                    f"{', '.join(parts)}, or if it is one name, say so with "
                    f"{names.mapped('data.labels', {label: label.replace(separator, '_')})}"
                )


def _split(name: str, renames: dict[str, str], where: str) -> str | None:
    if not name:
        return None
    split = split_of(name)
    split = renames.get(name) or (renames.get(split, split) if split else None)
    if split not in ("train", "val", "test"):
        raise InputError(f"{where}: split must be train, val, test or empty, got {name!r}")
    return split


def _file(folder: Path, path: str) -> Path:
    """The file that a path means, also one written on Windows, on a Mac, or without its ending."""
    plain = path.replace("\\", "/")
    for text in (path, plain):
        for form in ("NFC", "NFD"):
            file = folder / unicodedata.normalize(form, text)
            if file.is_file():
                return file
    whole = folder / plain
    if not whole.suffix and whole.parent.is_dir():
        candidates = [one for one in whole.parent.iterdir() if one.stem == whole.name]
        if len(candidates) == 1:
            return candidates[0]
    return folder / path
