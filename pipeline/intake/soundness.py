"""Check that a dataset can be learned from: no class lost, few bad files, no empty split.

rows + reasons -> nothing, or an error that says what to fix.
"""

import csv
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.data import names
from pipeline.data.manifest import SPLITS, Row
from pipeline.data.tasks import Task
from pipeline.errors import InputError
from pipeline.storage import tables

_ABSENT = "unreadable: No such file"
_PATHS = "correct the paths, which are relative to the csv file's folder, or repair the links"


def check_files(rows: list[Row], bad: Mapping[str, str], max_fraction: float) -> None:
    """Check the files that were read.

    Raises:
        InputError: Nothing was read, no file is usable, or too many are bad.
    """
    if not rows:
        raise InputError("no images in class folders, or all ignored: check data.path, data.ignore")
    if not bad:
        return
    path, reason = next(iter(bad.items()))
    first = f"the first is {path} ({reason})"
    if len(bad) == len(rows) or len(bad) > max_fraction * len(rows):
        absent = sum(reason.startswith(_ABSENT) for reason in bad.values())
        repair = "repair them or raise prepare.max_bad_fraction"
        remedy = _PATHS if absent > len(bad) / 2 else repair
        raise InputError(
            f"{len(bad)} of {len(rows)} files are bad, at most {max_fraction:.0%} are tolerated: "
            f"{first}; {remedy}"
        )


def check_vanished(rows: Sequence[Row], reasons: Mapping[str, str], task: Task) -> None:
    """Stop at a class without a usable image: it must not disappear silently."""
    files = Counter(name for row in rows for name in task.names(row.label))
    good = {name for row in rows if row.path not in reasons for name in task.names(row.label)}
    for label in sorted(files.keys() - good):
        paths = [row.path for row in rows if label in task.names(row.label)]
        absent = [path for path in paths if reasons[path].startswith(_ABSENT)]
        if len(absent) == len(paths):
            raise InputError(
                f"none of the {files[label]} files of class {label!r} exists, the first is "
                f"{paths[0]}: {_PATHS}"
            )
        raise InputError(
            f"class {label!r} has {files[label]} files and no usable image: the first is "
            f"{paths[0]} ({reasons[paths[0]]}); repair them, or {_left_out(label)}"
        )


def check_classes(used: Iterable[Row], task: Task, title: str) -> list[str]:
    """Check classes and splits; returns the classes, sorted.

    Raises:
        InputError: Labels that nothing can be learned from, class names that are too similar, or
            an empty split.
    """
    labels: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row in used:
        labels.setdefault(row.split, []).append(row.label)
    every = [label for own in labels.values() for label in own]
    counts = Counter(
        (n, split) for split in labels for row in labels[split] for n in task.names(row)
    )
    classes = task.classes(every, title)
    check_names(classes)
    task.check(labels)
    for split in SPLITS if counts else ():
        short = [name for name in classes if not counts[name, split]]
        if short:
            size = sum(counts[short[0], each] for each in SPLITS)
            raise InputError(
                f"each class needs at least 1 image in {split}, but class {short[0]!r} has none of "
                f"its {size} there"
                + (f" ({len(short)} classes in all)" if len(short) > 1 else "")
                + ": add images, lower the counts or fractions in section prepare, or "
                + _left_out(short[0])
            )
    return classes


def _left_out(name: str) -> str:
    """Say how to do without a class."""
    ignored = names.added("data.ignore", name)
    return f"leave the class out with {ignored} (init --ignore {shlex.quote(name)})"


def excluded(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Map the images that a csv file excludes to a reason; prints those that do not exist.

    Raises:
        InputError: There is no such file, or it has no column path.
    """
    listed = _listed(path)
    existing = {row.path for row in rows}
    missing = [name for name in listed if name not in existing]
    if missing:
        print(
            f"{len(missing)} of {len(listed)} paths in {path} do not exist in the data, the first "
            f"is {missing[0]}",
            flush=True,
        )
    return {name: f"excluded by {path}" for name in listed if name in existing}


def _listed(path: Path) -> list[str]:
    try:
        header, lines = tables.read_table(path)
    except FileNotFoundError as error:
        raise InputError(
            f"prepare.exclude: no file {path}; conf/exclude.csv excludes nothing"
        ) from error
    except (ValueError, csv.Error) as error:  # not UTF-8, or empty
        raise InputError(
            f"prepare.exclude must be a csv file in UTF-8 with a column path: {path} is not"
        ) from error
    if "path" not in header:
        raise InputError(
            f"prepare.exclude must be a csv file with a column path, {path} has "
            f"{', '.join(header) or 'none'}: copy outputs/evaluate/label_errors.csv"
        )
    place = header.index("path")
    return [line[place] for line in lines if len(line) > place]


def check_names(classes: Iterable[str]) -> None:
    """Stop at class names that people read as the same."""
    names_seen: dict[str, str] = {}
    for name in classes:
        plain = " ".join(name.casefold().split())
        with suppress(ValueError):
            plain = str(float(unicodedata.normalize("NFKC", plain)) + 0.0)  # -0 is 0
        if plain in names_seen:
            raise InputError(
                "class names must differ in more than case, spaces and number format, "
                f"got {names_seen[plain]!r} and {name!r}: write both the same way, or set "
                f"{names.mapped('data.labels', {names_seen[plain]: name})}"
            )
        names_seen[plain] = name
