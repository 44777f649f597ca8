"""A csv file with the columns path, label and optionally split and others.

csv -> images. Instead of label, several columns of 0 and 1 or a column of numbers may say what an
image shows. Paths are relative to the csv file's folder. Metrics are also reported for each value
of the other columns.
"""

import csv
import io
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data import names, tasks
from pipeline.data.manifest import COLUMNS
from pipeline.data.tasks import Task
from pipeline.errors import InputError
from pipeline.intake import label_file
from pipeline.intake.layout import split_of
from pipeline.intake.sources import IGNORED, Sample, SourceConfig, matches
from pipeline.settings import AUTO, setting
from pipeline.storage import addresses
from pipeline.storage.derived import Derived

_DELIMITERS = (",", ";", "\t")
_SEPARATORS = ("|", ";", ",", "+", "/", "&", " ")
SEVERAL = _SEPARATORS[0]
"""Text between several labels of an image, unless a setting names another."""
_TRUTHS = dict.fromkeys(("1", "1.0", "true", "yes"), True) | dict.fromkeys(
    ("0", "0.0", "false", "no"), False
)
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
    task: str = setting(
        AUTO,
        "What is predicted: classification, multilabel or regression. `auto` decides by the "
        "settings below, and by `|` in labels.",
    )
    label_separator: str | None = setting(None, "Text between several labels of an image.")
    label_columns: list[str] = setting([], "Columns of 0 and 1, one for each label.")
    target: str | None = setting(None, "Column of numbers to predict, such as price.")

    @property
    def columns(self) -> list[str]:
        """Columns that say what an image shows."""
        return [self.target] if self.target else self.label_columns or ["label"]

    def check(self, section: str) -> None:
        """Stop at several answers to one question."""
        super().check(section)
        named = ("label_separator", "label_columns", "target")
        given = [f"{section}.{name}" for name in named if getattr(self, name)]
        if len(given) > 1:
            raise InputError(f"set only one of {', '.join(given)}: they exclude each other")


@dataclass(frozen=True)
class _Line:
    """A line: where it is, and its cells by column."""

    where: str
    cells: dict[str, str]


def task(config: Config) -> Derived:
    """Decide what is predicted, with the reason."""
    return _task(config, _read(config)[1])


def images(config: Config) -> Iterator[Sample]:
    """Yield the images that a csv file lists.

    Raises:
        InputError: The file or a column is missing, a line does not have the header's cells, or
            a split or a label is not as it must be.
    """
    path = Path(config.path)
    further, lines = _read(config)
    what = tasks.named(str(_task(config, lines).value))
    rows: dict[str, Sample] = {}
    for line in lines:
        name = line.cells["path"]
        if name in rows:
            raise InputError(f"{line.where} lists {name} again: remove the line")
        if _ADDRESS.match(name):
            raise InputError(
                f"{line.where}: a path must be a local file, got {addresses.public(name)}: "
                "download the images, and list their files"
            )
        split = _split(line.cells.get("split", ""), config.splits, line.where)
        label, left_out = _label(config, what, line)
        extra = {column: line.cells[column] for column in further}
        group = line.cells[config.group] if config.group else ""
        rows[name] = Sample(
            names.display(name),
            label,
            split,
            _file(path.parent, name),
            extra=extra,
            group=group,
            left_out=left_out,
        )
    if config.task == AUTO and not what.several:
        _refuse_several(path, {image.label for image in rows.values()} - set(config.labels))
    every = {part for row in rows.values() for part in what.names(row.label)}
    for column in config.label_columns:
        if rows and config.labels.get(column, column) not in every:
            raise InputError(
                f"{path}: no image has a 1 in column {column!r}: leave it out of data.label_columns"
            )
    yield from _without_ignored(rows.values(), config, what)


def _without_ignored(samples: Iterable[Sample], config: Config, what: Task) -> Iterator[Sample]:
    """Take the labels that data.ignore names away: images with others remain."""
    removed: set[str] = set()
    for image in samples:
        every = what.names(image.label)
        kept = [name for name in every if not any(matches(p, name) for p in config.ignore)]
        removed |= set(every) - set(kept)
        if kept == every:
            yield image
        elif kept or (what.several and config.label_columns):
            yield replace(image, label=what.label(kept))
        else:  # like an image without a label
            yield replace(image, left_out=IGNORED)
    for name in sorted(removed) if what.several else ():
        yield Sample(f"{name}/", name, left_out=IGNORED)


def _read(config: Config) -> tuple[list[str], list[_Line]]:
    """Read the names of further columns, and the lines."""
    path = Path(config.path)
    if not path.is_file():
        raise InputError(f"data.path must be a csv file, got {path}: no such file")
    content = path.read_bytes()
    started = content.startswith(",".join(label_file.COLUMNS).encode())
    if started and label_file.torn(content.replace(b"\r", b"\n")):
        raise InputError(
            f"the last line of {path} is incomplete: remove it, or run `python -m pipeline label`, "
            "which does"
        )
    text = _lines(path, config.encoding)
    first = next(iter(text), "")  # the delimiter is not always a comma
    delimiter = max(_DELIMITERS, key=lambda sign: (first.count(sign), sign == ","))
    table = csv.reader(text, delimiter=delimiter)
    header = [name.strip() for name in next(table, [])]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise InputError(f"{path} has several columns named {repeated[0]!r}: rename all but one")
    further = _extra_columns(config, header)
    if config.group is not None and config.group not in further:
        raise InputError(
            f"data.group must be a column of {path} besides path, {', '.join(config.columns)} and "
            f"split, got {config.group!r}: it has {', '.join(further) or 'no others'}"
        )
    lines = []
    try:
        for cells in table:
            if any(cell.strip() for cell in cells):
                where = f"{path} line {table.line_num}"
                lines.append(_Line(where, _row(where, header, cells)))
    except csv.Error as error:
        raise InputError(
            f"{path} line {table.line_num} is not valid csv ({error}): is a quote missing?"
        ) from error
    if tuple(header) == label_file.COLUMNS:
        latest = {posixpath.normpath(line.cells["path"]): line for line in lines}
        labels = {name: line.cells["label"] for name, line in latest.items() if line.cells["label"]}
        for name in label_file.test_images(labels):
            latest[name].cells["split"] = "test"
        return [], list(latest.values())
    return further, lines


def _task(config: Config, lines: Sequence[_Line]) -> Derived:
    separator = config.label_separator
    column = config.columns[0]
    with_separator = [
        line.cells[column]
        for line in lines
        if line.cells[column] not in config.labels
        and len(parts := line.cells[column].split(separator or SEVERAL)) > 1
        and all(part.strip() for part in parts)
    ]
    if separator and not with_separator:
        raise InputError(
            f"data.label_separator must be between labels in {config.path}, but {separator!r} is "
            "in none: correct it, or leave it out"
        )
    if config.task != AUTO:
        return Derived(config.task, "as requested")
    if config.target:
        return Derived("regression", f"{config.target} is a column of numbers (data.target)")
    if separator or config.label_columns:
        return Derived("multilabel", "an image may have several labels (data.label_*)")
    if with_separator:
        return Derived(
            "multilabel",
            f"{len(with_separator)} of {len(lines)} images have several labels, such as "
            f"{with_separator[0]}; data.task=classification makes each a class of its own",
        )
    return Derived(tasks.DEFAULT, "each image has one label")


def _label(config: Config, what: Task, line: _Line) -> tuple[str, str]:
    """Return the label of an image, or why it has none."""
    cells = {column: line.cells[column] for column in config.columns}
    if not all(cells.values()):
        return "", f"without {' and '.join(column for column in cells if not cells[column])}"
    if config.label_columns:
        if not what.has_strata:
            raise InputError(
                f"data.label_columns are labels, but {what.noun} are predicted: name their column "
                "with data.target"
            )
        wrong = [column for column, text in cells.items() if text.lower() not in _TRUTHS]
        if wrong:
            raise InputError(
                f"{line.where}: data.label_columns must be columns of 0 and 1, got "
                f"{wrong[0]}={cells[wrong[0]]}"
            )
        parts = [column for column, text in cells.items() if _TRUTHS[text.lower()]]
    else:
        (text,) = cells.values()
        separator = config.label_separator or SEVERAL
        several = what.several and text not in config.labels
        parts = [part.strip() for part in text.split(separator)] if several else [text]
        parts = [_name(line.where, part) for part in parts if part]
    try:
        return what.label([config.labels.get(part, part) for part in parts]), ""
    except ValueError as error:
        raise InputError(f"{line.where}: {error}") from error


def _lines(path: Path, encoding: str) -> list[str]:
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
    return list(io.StringIO(text, newline=""))  # a csv file has no other line ends


def _extra_columns(config: Config, header: list[str]) -> list[str]:
    path, needed = config.path, ["path", *config.columns]
    missing = sorted(set(needed) - set(header))
    if missing:
        number = ", or name a column of numbers with data.target" if missing == ["label"] else ""
        raise InputError(
            f"{path} needs the columns {' and '.join(needed)}, got "
            f"{header or 'an empty file'}: add {', '.join(missing)}{number}"
        )
    further = [name for name in header if name not in (*needed, "split")]
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
    if not row["path"]:
        raise InputError(f"{where} needs a path, got {row}")
    return row


def _name(where: str, text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise InputError(
            f"{where}: a label must be one line of text, got {names.display(text)}: is a quote "
            "missing before it?"
        )
    return names.label(text)


def _refuse_several(path: Path, labels: set[str]) -> None:
    """Stop at labels such as `cat|dog`, unless data.labels renames them."""
    for label in sorted(labels):
        if label.startswith("[") and label.endswith("]"):
            raise InputError(
                f"{path}: each image must have one label, got a list, {label!r}: keep one"
            )
        for separator in _SEPARATORS:
            parts = [part.strip() for part in label.split(separator)]
            if len(parts) > 1 and all(parts) and set(parts) <= labels:
                raise InputError(
                    f"{path}: each image must have one label, got several, {label!r}: set "
                    f"data.label_separator={separator!r}, or if it is one name, "
                    f"{names.mapped('data.labels', {label: '_'.join(parts)})}"
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
        for name in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))):
            file = folder / name
            if file.is_file():
                return file
    whole = folder / plain
    if not whole.suffix and whole.parent.is_dir():
        candidates = [file for file in whole.parent.iterdir() if file.stem == whole.name]
        if len(candidates) == 1:
            return candidates[0]
    return folder / path
