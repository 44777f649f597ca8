"""A labelling session: labels of a pool, the head that learns from them, and what to label next.

pool + label file -> state for the page. The head is refitted in a thread of its own, so that no
label waits for it.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.intake import label_file
from pipeline.teaching import order
from pipeline.teaching.labels import LabelFile
from pipeline.teaching.learner import Learned, Learner
from pipeline.teaching.pool import Pool

_SUGGESTED, _DOUBTS, _SIMILAR, _CURVE = 40, 6, 12, 6
"""Maximum numbers: images suggested at a time, doubted labels, images in a grid, points of the
curve that a restart computes anew."""
_WAITING = 12


class Session:
    """Labels of a pool while a person adds to them; lines about other images are kept."""

    def __init__(self, pool: Pool, labels: LabelFile) -> None:
        self._pool, self._labels = pool, labels
        self._names = [sample.path for sample in pool.samples]
        self._rows = {name: row for row, name in enumerate(self._names)}
        self._learner = Learner(pool.features)
        self._token = secrets.token_hex(8)
        self._skipped: set[int] = set()
        self._together: list[int] = []
        self._curve: dict[int, tuple[float, float, float]] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._held_out = label_file.held_out(self._names)
        self._learned = self._learner.fit({})
        self._useful = self._suggested(self._learned, [])
        self._changed.set()
        threading.Thread(target=self._follow, daemon=True).start()

    def label(self, names: list[str], label: str, seconds: float) -> None:
        """Label images; `seconds` is the time that a person took for all of them.

        Raises:
            InputError: There is no such image, or the label cannot be the name of a class.
        """
        for name in names:
            self._row(name)
        with self._lock:
            for name in names:
                self._labels.add(name, label, seconds / len(names))
            self._together.append(len(names))
        self._changed.set()

    def undo(self) -> str | None:
        """Take the last label back, of all images that it was given to together.

        Returns:
            Path of the first one; None if there is no label.
        """
        with self._lock:
            count = self._together.pop() if self._together else 1
            *_, name = (self._labels.undo(self._rows) for _ in range(count))
        self._changed.set()
        return name

    def skip(self, name: str) -> None:
        """Leave an image for later: it is not suggested again in this session."""
        self._skipped.add(self._row(name))
        self._changed.set()

    def similar(self, name: str) -> list[str]:
        """Return an image and the most similar ones without a label."""
        row, places = self._row(name), self._learner.reduced
        distances = ((places - places[row]) ** 2).sum(axis=1)
        avoided = {*self._labelled(), *self._held_out}
        nearest = [n for n in np.argsort(distances, kind="stable").tolist() if n not in avoided]
        return [self._names[n] for n in dict.fromkeys([row, *nearest][:_SIMILAR])]

    def sample(self, name: str) -> bytes:
        """Read the file of an image."""
        return self._pool.samples[self._row(name)].read()

    def state(self) -> dict[str, Any]:
        """Return everything that the page shows, as plain values."""
        with self._lock:
            labels, learned, useful = dict(self._labels.labels), self._learned, self._useful
        labelled = {self._rows[name] for name in labels if name in self._rows}
        avoided = labelled | self._skipped
        counts = Counter(dict.fromkeys(labels.values(), 0))  # of other images, too
        counts.update(labels[self._names[row]] for row in labelled)
        return {
            "session": self._token,  # browsers keep images: those of another one are not these
            "file": str(self._labels.path),
            "images": len(self._names),
            "labelled": len(labelled),
            "left": len(self._names) - len(avoided),
            "classes": [list(item) for item in sorted(counts.items())],
            "accuracy": learned.accuracy(self._held_out),
            "curve": [[count, *values] for count, values in sorted(self._curve.items())],
            "queue": [
                self._suggestion(row, learned)
                for row in order.mixed(useful, self._held_out, avoided, _WAITING)
            ],
            "doubts": [
                {"path": self._names[row], "label": labels[self._names[row]], "guess": other}
                for row, other, _ in learned.doubts(_DOUBTS)
                if self._names[row] in labels and labels[self._names[row]] != other
            ],
        }

    def _suggestion(self, row: int, learned: Learned) -> dict[str, Any]:
        sure = float(learned.probabilities[row].max())
        return {"path": self._names[row], "guess": learned.guess(row) or None, "probability": sure}

    def _row(self, name: str) -> int:
        if name not in self._rows:
            raise InputError(f"no image {name!r} in this folder: reload the page")
        return self._rows[name]

    def _labelled(self) -> dict[int, str]:
        with self._lock:
            labels = self._labels.labels.items()
            return {self._rows[name]: label for name, label in labels if name in self._rows}

    def _follow(self) -> None:
        """Refit the head whenever labels have changed."""
        labels = self._labelled()
        for count in np.geomspace(10, max(len(labels), 10), _CURVE).astype(int)[:-1].tolist():
            self._learn(dict(list(labels.items())[:count]))
        while self._changed.wait():
            self._changed.clear()
            labels = self._labelled()
            learned = self._learn(labels)
            useful = self._suggested(learned, labels)
            with self._lock:
                self._learned, self._useful = learned, useful

    def _learn(self, labels: dict[int, str]) -> Learned:
        learned = self._learner.fit(labels)
        if accuracy := learned.accuracy(self._held_out):
            self._curve[len(labels)] = accuracy
        return learned

    def _suggested(self, learned: Learned, labels: Iterable[int]) -> list[int]:
        avoided = {*labels, *self._skipped}
        places, answers = self._learner.reduced, learned.probabilities
        rows: list[int] = order.suggest(
            places, answers, avoided, _SUGGESTED, self._held_out
        ).tolist()
        return rows
