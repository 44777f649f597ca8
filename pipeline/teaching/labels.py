"""The label file: an append-only csv of a person's labels of images.

path, label, time, seconds; the last line about a path counts, and an empty label takes it back.
`data.use=csv` reads it as it is. A line is on disk before the next image is shown.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake import soundness
from pipeline.intake.label_file import COLUMNS
from pipeline.intake.sources.csv import SEVERAL

_LONGEST = 200
"""Characters of a class name."""


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
        self.labels: dict[str, str] = {}
        self._history: list[tuple[str, str]] = []
        seen: set[str] = set()
        for name, label in lines:
            before = self._last([name]) if name in seen else None
            if before is not None and self._history[before] == (name, label):  # it was taken back
                self._history.pop(before)
            else:
                self._history.append((name, self.labels.get(name, "")))
            seen.add(name)
            self._apply(name, label)

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
        line = io.StringIO()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(name, label, now, f"{seconds:.1f}")]
        if not self.path.exists() or not self.path.stat().st_size:
            rows.insert(0, COLUMNS)
        csv.writer(line, lineterminator="\n").writerows(rows)
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line.getvalue().encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:  # such as a full disk: a line is there or not
            with suppress(OSError):
                os.truncate(self.path, size)
            raise
        self._history.append((name, self.labels.get(name, "")))
        self._apply(name, label)

    def undo(self, images: Container[str]) -> str | None:
        """Take the last label of some images back; returns its path, None if there is none."""
        place = self._last(images)
        if place is None:
            return None
        name, before = self._history.pop(place)
        self.add(name, before, 0)
        self._history.pop()
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


def read(path: Path) -> list[tuple[str, str]]:
    """Read path and label of each complete line, in order; nothing if there is no file.

    Raises:
        InputError: It is not a label file.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
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
    return [(line[0], line[1]) for line in lines]


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
    """Remove a last line that was not written to its end."""
    if not path.exists():
        return False
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end == len(content):
        return False
    with path.open("r+b") as file:
        file.truncate(end)
    return True
