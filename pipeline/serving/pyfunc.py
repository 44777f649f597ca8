"""The classifier as an MLflow pyfunc: one image per row -> prediction, probabilities, trust.

A bad row only affects itself: its reason is in the column `error`. It is packaged with the model:
see logged_model.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.image_file import Pixels, or_reason
from pipeline.data.tasks import Task
from pipeline.networks.trust.judging import Answers
from pipeline.serving.classifier import Classifier
from pipeline.serving.content import content
from pipeline.serving.settings import DEFAULTS, MAX_IMAGE_MB

COLUMN = "image"
"""Name of the input column."""
CHUNK = 32
"""Images that are decoded before they pass the network together."""

_log = logging.getLogger(__name__)


def fields(task: Task) -> dict[str, str]:
    """Map each field of an answer to its kind."""
    region = {name: "strings" if name == "labels" else "double" for name in task.region}
    return {**task.answer, "known": "boolean", "typicality": "double", **region, "error": "string"}


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Service:
    """Load a logged file; MLflow calls this, and `predict` of the result."""
    limits = {**DEFAULTS, **(model_config or {})}
    trust = float(limits["unknown"]), float(limits["coverage"])
    return Service(Classifier(Path(path), True, *trust), int(MAX_IMAGE_MB * 1e6))


class Service:
    """A classifier for use by many threads.

    Attributes:
        classifier: The classifier.
        columns: Fields of an answer.
        decoders: As many threads as processors: a large image may need hundreds of MB.
    """

    def __init__(self, classifier: Classifier, max_bytes: int) -> None:
        self.classifier = classifier
        self.decoders = ThreadPoolExecutor(os.cpu_count(), "decode")
        self.columns = tuple(fields(classifier.task))
        self._max_bytes = max_bytes

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Classify images; never raises because of a row.

        Args:
            rows: A column `image`: the bytes of an image file, their base64 (also as a data URL),
                an array (H, W) or (H, W, 3) of 0 to 255, a PIL image, or a `pathlib.Path`, which
                JSON cannot contain: no client can name a file on the server.

        Returns:
            One row per image. With classes: prediction, probability (of the prediction),
            probabilities (class -> probability), known (False if unlike the training data),
            typicality (fraction of validation images that are at least as unusual), labels (the
            prediction set; None without calibration images), error (None, or the reason why the
            others are None). With several labels, prediction is a list, and there is no
            probability. With numbers, prediction is one, and low and high are the ends of its
            prediction interval instead of probabilities and labels.
        """
        answers: list[dict[str, Any]] = []
        values = _flat(list(rows[COLUMN])) if len(rows) else []
        for start in range(0, len(values), CHUNK):
            decoded = list(self.decoders.map(self.decode, values[start : start + CHUNK]))
            answers += self.rows(decoded, self.answers(stacked(decoded)))
        # Objects, because None would otherwise become NaN, which JSON does not have.
        return pd.DataFrame(answers, columns=self.columns, dtype=object)

    def get_raw_model(self) -> Classifier:
        """Return the classifier itself, as MLflow's `get_raw_model`."""
        return self.classifier

    def decode(self, value: Any) -> Pixels | str:
        """Return the pixels, or why there are none."""
        try:
            return or_reason(lambda: self.classifier.decode(content(value, self._max_bytes)))
        except Exception:  # one row must not affect the others
            _log.exception("a row could not be decoded")
            return "damaged: this image could not be decoded"

    def answers(self, images: Pixels | None) -> Answers | None:
        """Classify (N, H, W, 3) images; None if there are none, or if the network fails."""
        try:
            return None if images is None else self.classifier.answers(images)
        except Exception:
            _log.exception("the network failed")
            return None

    def rows(
        self, decoded: Sequence[Pixels | str], answers: Answers | None
    ) -> list[dict[str, Any]]:
        """Describe answers, which are for those with pixels in order, as `predict` does."""
        classes, rows, place = self.classifier.card.classes, [], 0
        task, empty = self.classifier.task, dict.fromkeys(self.columns)
        for item in decoded:
            if isinstance(item, str):
                rows.append({**empty, "error": item})
            elif answers is None:
                message = "the network failed on this image; see the server's log"
                rows.append({**empty, "error": message})
            else:
                rows.append({**answers.answer(place, task, classes), "error": None})
                place += 1
        return rows


def stacked(decoded: Sequence[Pixels | str]) -> Pixels | None:
    """Return those with pixels as (N, H, W, 3); None if there are none."""
    images = [item for item in decoded if not isinstance(item, str)]
    return np.stack(images) if images else None


def _flat(values: list[Any]) -> list[Any]:
    """Unpack MLflow's forms `inputs` and `instances`, which arrive as one row's list."""
    if len(values) == 1 and isinstance(values[0], list | np.ndarray):
        inner = list(values[0])
        if any(isinstance(value, str) for value in inner) or _is_stack(inner):
            return inner
    return values


def _is_stack(rows: list[Any]) -> bool:
    """Check for several images (H, W, 3), as opposed to the lines of one."""
    try:
        return np.ndim(rows) == 4
    except ValueError:  # ragged
        return False
