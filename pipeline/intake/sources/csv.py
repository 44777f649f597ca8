"""A csv file with the columns path, label and optionally split and others.

csv -> images. Paths are relative to the csv file's folder. Metrics are also reported for each
value of the other columns.
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
    splits: dict[str, str] = setting({}, "Rename splits, for example {val: test}.")
    encoding: str = setting("utf-8", "Text encoding, such as cp1252 for old Excel files.")
    group: str | None = setting(
        None, "Column, such as patient, whose images must be in the same split."
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images that a csv file lists.

    Raises:
        InputError: The file or a column is missing, a line does not have the header's cells, or
            a split has an unknown name.
    """
    path = Path(config.path)
    if not path.is_file():
        raise InputError(f"data.path must be a csv file, got {path}: no such file")
    table = csv.reader(_lines(path, config.encoding), delimiter=_delimiter(path, config.encoding))
    header = next(table, [])
    further = _extra_columns(path, header)
    if config.group is not None and config.group not in further:
        raise InputError(
            f"data.group must be a column of {path} besides path, label and split, got "
            f"{config.group!r}: it has {', '.join(further) or 'no others'}"
        )
    rows: dict[str, Sample] = {}
    for cells in _cells(path, table):
        where = f"{path} line {table.line_num}"
        if not any(cell.strip() for cell in cells):
            continue
        row = _row(where, header, cells)
        if row["path"] in rows:
            raise InputError(f"{where} lists {row['path']} again: remove the line")
        if _ADDRESS.match(row["path"]):
            raise InputError(
                f"{where}: a path must be a local file, got "
                f"{addresses.public(row['path'])}: download the images, and list their files"
            )
        split = _split(row.get("split", ""), config.splits, where)
        label = _label(where, row["label"])
        file = _file(path.parent, row["path"])
        extra = {name: row[name] for name in further}
        group = row[config.group] if config.group else ""
        rows[row["path"]] = Sample(
            names.display(row["path"]), label, split, file, extra=extra, group=group
        )
    _refuse_several(path, {image.label for image in rows.values()} - set(config.labels))
    yield from rows.values()


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Decode the file's lines, without a byte order mark."""
    content = path.read_bytes()
    if content.startswith(_UTF16):
        encoding = "utf-16"
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} must be {error.encoding} text, but line {line} is not: save it as UTF-8, or "
            "set data.encoding, for example to cp1252"
        ) from error
    except LookupError as error:
        raise InputError(
            f"unknown data.encoding {encoding}: use for example utf-8 or cp1252"
        ) from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path} line {line} contains a null byte: is it a csv file?")
    return iter(text.splitlines(keepends=True))


def _delimiter(path: Path, encoding: str) -> str:
    """Find the delimiter in the header: not always a comma."""
    first = next(_lines(path, encoding), "")
    return max(_DELIMITERS, key=lambda sign: (first.count(sign), sign == ","))


def _extra_columns(path: Path, header: list[str]) -> list[str]:
    missing = {"path", "label"} - set(header)
    if missing:
        raise InputError(
            f"{path} needs the columns path and label, got "
            f"{header or 'an empty file'}: add {', '.join(sorted(missing))}"
        )
    further = [name for name in header if name not in _COLUMNS]
    taken = sorted({"", *COLUMNS} & set(further))
    if taken:
        raise InputError(f"{path} must not have a column named {taken[0]!r}: rename it")
    return further


def _row(where: str, header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise InputError(
            f"{where} must have {len(header)} cells like the header, got {len(cells)}: quote a "
            "path "
            f'or label that contains the delimiter, "{cells[0]} ..."'
        )
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if not row["path"] or not row["label"]:
        raise InputError(f"{where} needs a path and a label, got {row}")
    return row


def _label(where: str, text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InputError(
            f"{where}: a label must be one line of text, got {names.display(text)}: is a quote "
            "missing before it?"
        )
    return names.label(text)


def _cells(path: Path, table: Any) -> Iterator[list[str]]:
    """Yield the lines of a table."""
    try:
        yield from table
    except csv.Error as error:
        raise InputError(
            f"{path} line {table.line_num} is not valid csv ({error}): is a quote missing?"
        ) from error


def _refuse_several(path: Path, labels: set[str]) -> None:
    """Stop at labels such as `cat|dog`, unless data.labels renames them."""
    for label in sorted(labels):
        if label.startswith("[") and label.endswith("]"):
            raise InputError(
                f"{path}: each image must have one label, got a list, {label!r}: keep one"
            )
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(parts) and (separator == "|" or set(parts) <= labels):
                raise InputError(
                    f"{path}: each image must have one label, got several, {label!r}: keep one of "
                    f"{', '.join(parts)}, or if it is one name, set "
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
    """Find the file of a path, also one written on Windows or a Mac, or without its suffix."""
    plain = path.replace("\\", "/")
    for text in (path, plain):
        for form in ("NFC", "NFD"):
            file = folder / unicodedata.normalize(form, text)
            if file.is_file():
                return file
    whole = folder / plain
    if not whole.suffix and whole.parent.is_dir():
        candidates = [file for file in whole.parent.iterdir() if file.stem == whole.name]
        if len(candidates) == 1:
            return candidates[0]
    return folder / path
