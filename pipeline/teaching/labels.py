"""The label file: an append-only csv of a person's labels of images.

path, label, time, seconds; the last line about a path counts, and an empty label takes it back.
`data.use=csv` reads it as it is. A line is on disk before the next image is shown.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake import soundness
from pipeline.intake.label_file import COLUMNS, torn
from pipeline.intake.sources.csv import SEVERAL

_LONGEST = 200
"""Characters of a class name."""
_TAKEN_BACK = "0.0"
"""Seconds of a line that takes the last label back."""


class LabelFile:
    """A label file, open for writing by this process alone.

    Args:
        path: The csv file; created with the first label.

    Attributes:
        labels: Path -> label, without those that were taken back.
        damaged: True if an incomplete last line was removed.

    Raises:
        InputError: Another process writes it, or it is not a label file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        itself = path.resolve()  # a link to it is the same file
        self._lock = FileLock(itself.with_name(f".{itself.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{path} is being labelled by another process: close it first, or name another "
                "file with --labels"
            ) from error
        lines = read(path)
        self.damaged = _repair(path)
        self._size = _size(path)
        self.labels: dict[str, str] = {}
        self._history: list[tuple[str, str]] = []
        for name, label, seconds in lines:
            before = self._last([name]) if seconds == _TAKEN_BACK else None
            if before is not None:
                self._history.pop(before)
            else:
                self._history.append((name, self.labels.get(name, "")))
            self._apply(name, label)
        try:
            soundness.check_names(sorted(set(self.labels.values())))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    def add(self, name: str, label: str, seconds: float) -> None:
        """Write a label.

        Args:
            name: Path of the image, relative to the file's folder, POSIX.
            label: Class name; empty takes the last one back.
            seconds: Time that a person took.

        Raises:
            InputError: It cannot be the name of a class.
        """
        if label:
            check_name(label, {own for path, own in self.labels.items() if path != name})
        self._write(name, label, f"{max(seconds, 0.1):.1f}")
        self._history.append((name, self.labels.get(name, "")))
        self._apply(name, label)

    def _write(self, name: str, label: str, seconds: str) -> None:
        line = io.StringIO()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(name, label, now, seconds)]
        if not self._size:
            rows.insert(0, COLUMNS)
        csv.writer(line, lineterminator="\n").writerows(rows)
        if _size(self.path) != self._size:
            raise InputError(f"{self.path} was changed by another program: start label again")
        try:
            with self.path.open("ab") as file:
                file.write(line.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # such as a full disk: a line is there or not
            with suppress(OSError):
                os.truncate(self.path, self._size)
            raise
        self._size = _size(self.path)

    def undo(self, images: Container[str]) -> str | None:
        """Take the last label of some images back; returns its path, None if there is none."""
        place = self._last(images)
        if place is None:
            return None
        name, before = self._history[place]
        self._write(name, before, _TAKEN_BACK)
        self._history.pop(place)
        self._apply(name, before)
        return name

    def close(self) -> None:
        """Let another process write."""
        self._lock.release()

    def _last(self, images: Container[str]) -> int | None:
        """Return the place of the last label of some images in the history."""
        places = reversed(range(len(self._history)))
        return next((n for n in places if self._history[n][0] in images), None)

    def _apply(self, name: str, label: str) -> None:
        self.labels.pop(name, None)
        if label:
            self.labels[name] = label


def read(path: Path) -> list[tuple[str, str, str]]:
    """Read path, label and seconds of each complete line; nothing if there is no file.

    Raises:
        InputError: It is not a label file.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content.removesuffix(torn(content))
    if not whole and ",".join(COLUMNS).encode().startswith(content):  # killed in the header
        return []
    try:
        text = io.StringIO(whole.decode("utf-8-sig"), newline="")
        header, *lines = list(csv.reader(text)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} must be a csv file in UTF-8 ({error}): name another file with --labels"
        ) from error
    if tuple(header) != COLUMNS:
        raise InputError(
            f"a label file must have the columns {', '.join(COLUMNS)}, {path} has "
            f"{', '.join(header) or 'none'}: name another file with --labels"
        )
    for number, line in enumerate(lines, start=2):
        if len(line) != len(COLUMNS):
            raise InputError(
                f"{path} line {number} must have {len(COLUMNS)} cells, got {len(line)}: "
                "correct or remove it"
            )
    return [(posixpath.normpath(name), label.strip(), end) for name, label, _, end in lines]


def check_name(label: str, others: set[str]) -> None:
    """Check that a label can be the name of a class beside others; raises InputError if not."""
    text = label.encode("utf-8", "backslashreplace").decode()
    if label != names.label(text) or SEVERAL in label or len(label) > _LONGEST:
        raise InputError(
            f"a class name must be a line of text without {SEVERAL}, of at most {_LONGEST} "
            f"characters, got {names.display(text[:_LONGEST])!r}"
        )
    soundness.check_names(sorted(others | {label}))


def _repair(path: Path) -> bool:
    """Remove a last line that was not written to its end, or write the end of its line."""
    content = path.read_bytes() if path.exists() else b""
    if content.endswith(b"\n") or not content:
        return False
    rest = torn(content)
    with path.open("r+b") as file:
        file.truncate(len(content) - len(rest))
        file.seek(0, os.SEEK_END)
        file.write(b"" if rest else b"\n")
    return bool(rest)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
