"""The label file: an append-only csv of a person's labels of images.

path, label, time, seconds; the last line about a path counts, and an empty label takes it back.
`data.use=csv` reads it as it is. A line is on disk before the next image is shown.
"""

from __future__ import annotations

import csv
import io
import os
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake import soundness
from pipeline.intake.label_file import COLUMNS
from pipeline.intake.sources.csv import SEVERAL


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
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
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
        for name, label in lines:
            self._apply(name, label)
        self._history = [(name, "") for name in self.labels]

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
            check_name(label, set(self.labels.values()))
        line = io.StringIO()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(name, label, now, f"{seconds:.1f}")]
        if not self.path.exists() or not self.path.stat().st_size:
            rows.insert(0, COLUMNS)
        csv.writer(line, lineterminator="\n").writerows(rows)
        with self.path.open("ab") as file:  # one write: a line is there or not
            file.write(line.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        self._history.append((name, self.labels.get(name, "")))
        self._apply(name, label)

    def undo(self) -> str | None:
        """Take the last label back; returns its path, None if there is none."""
        if not self._history:
            return None
        name, before = self._history.pop()
        self.add(name, before, 0)
        self._history.pop()
        return name

    def close(self) -> None:
        """Let another process write."""
        self._lock.release()

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
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} must be UTF-8 text: name another file with --labels") from error
    whole = text[: text.rfind("\n") + 1]
    if not whole and ",".join(COLUMNS).startswith(text):  # killed while it wrote the header
        return []
    header, *lines = list(csv.reader(io.StringIO(whole))) or [[]]
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
    if label != names.label(label) or SEVERAL in label:
        raise InputError(
            f"a class name must be a line of text without {SEVERAL}, got {names.display(label)!r}"
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
