"""The classifier as an MLflow pyfunc: rows with an image each -> label, probabilities, trust.

One bad row costs nothing but itself: its reason is in its column `error`. Rows of requests
that come at the same time share a forward pass, whose shape is that of the training, so
that nobody's answer depends on who else asks. Travels with the model: see logged_model.py.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.data.image_file import Pixels, or_reason
from pipeline.data.opening import BadImage
from pipeline.networks.trust.judging import Answers
from pipeline.serving import about, ending, http_guard
from pipeline.serving.classifier import Classifier
from pipeline.serving.defaults import DEFAULTS, MAX_IMAGE_MB, MAX_ROWS

COLUMN = "image"
"""The column that rows have."""

_ANSWER = ("label", "probability", "probabilities", "known", "typicality", "labels", "error")
_NOTHING = dict.fromkeys(_ANSWER)
_CHUNK = 256
_log = logging.getLogger(__name__)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Service:
    """What MLflow calls: the file that was logged -> an object with `predict`."""
    limits = {**DEFAULTS, **(model_config or {})}
    trust = float(limits["unknown"]), float(limits["coverage"])
    classifier = Classifier(Path(path), True, *trust)
    if _is_server():
        page = about.page(classifier.card, limits, classifier.gives_sets)
        http_guard.install(int(limits["max_request_mb"] * 1e6), MAX_ROWS, page)
    return Service(classifier, int(MAX_IMAGE_MB * 1e6))


def _is_server() -> bool:
    from mlflow.pyfunc import scoring_server

    # MLflow sets it for its server's workers alone; it tells nothing else that tells them apart.
    return scoring_server._SERVER_MODEL_PATH in os.environ


class Service:
    """A classifier that many threads may ask at once.

    Args:
        classifier: What answers.
        max_bytes: Of an image's file.
    """

    def __init__(self, classifier: Classifier, max_bytes: int) -> None:
        self._classifier = classifier
        self._max_bytes = max_bytes
        # As many images are decoded at a time as there are processors: a large one may take
        # hundreds of MB meanwhile.
        self._decoders = ThreadPoolExecutor(os.cpu_count())
        self._waiting: queue.SimpleQueue[tuple[Pixels, Future[Answers]]] = queue.SimpleQueue()
        threading.Thread(target=self._answer, daemon=True, name="forward").start()

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Classify; never raises for what is in a row.

        Args:
            rows: A column `image`: the bytes of an image file, these in base64 (a data URL,
                too), an array (H, W) or (H, W, 3) of 0 to 255, or a `pathlib.Path`, which
                JSON cannot carry: no client of a server can name a file on it.

        Returns:
            A row for each: label, probability (of the label), probabilities (class ->
            probability), known (whether it knows such images), typicality (share of
            validation images that are at least as strange), labels (the set of those that
            may be true; None without calibration images), error (None if there is none;
            else the others are None).
        """
        answers: list[dict[str, Any]] = []
        values = _flat(list(rows[COLUMN])) if len(rows) else []
        ended = ending.current()
        decode = partial(self._decode, ended=ended)
        for start in range(0, len(values), _CHUNK):
            chunk = values[start : start + _CHUNK]
            asked = [self._ask(one) for one in self._decoders.map(decode, chunk)]
            answers += [self._told(one) for one in asked]
            if ended.is_set():
                raise ending.Ended
        # Objects, or else None would become NaN, which JSON does not have.
        return pd.DataFrame(answers, columns=_ANSWER, dtype=object)

    def get_raw_model(self) -> Classifier:
        """What MLflow's `get_raw_model` returns: the classifier itself."""
        return self._classifier

    def _decode(self, value: Any, ended: threading.Event) -> Pixels | str:
        """The pixels, or why there are none."""
        if ended.is_set():
            return "the request has ended"
        try:
            return or_reason(lambda: self._classifier.decode(content(value, self._max_bytes)))
        except Exception:  # one row must not take the others with it
            _log.exception("a row could not be decoded")
            return "damaged: this image could not be decoded"

    def _ask(self, decoded: Pixels | str) -> Future[Answers] | str:
        if isinstance(decoded, str):
            return decoded
        answer: Future[Answers] = Future()
        self._waiting.put((decoded, answer))
        return answer

    def _told(self, asked: Future[Answers] | str) -> dict[str, Any]:
        if isinstance(asked, str):
            return {**_NOTHING, "error": asked}
        try:
            answer = asked.result()
        except Exception:  # was logged where it happened
            message = "the network failed on this image; the server's log tells why"
            return {**_NOTHING, "error": message}
        classes = self._classifier.card.classes
        probabilities = dict(zip(classes, map(float, answer.probabilities[0]), strict=True))
        label = classes[int(answer.probabilities[0].argmax())]
        return {
            "label": label,
            "probability": probabilities[label],
            "probabilities": probabilities,
            **answer.trusted(0, classes),
            "error": None,
        }

    def _answer(self) -> None:
        """Answer for ever: whoever waits now, up to a batch of them, in one pass."""
        while True:
            batch = [self._waiting.get()]
            while len(batch) < self._classifier.card.batch_size and not self._waiting.empty():
                batch.append(self._waiting.get())
            try:
                answers = self._classifier.answers(np.stack([row for row, _ in batch]))
            except Exception as error:
                _log.exception("the network failed")
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            for row, (_, answer) in enumerate(batch):
                answer.set_result(answers.of(row))


def _flat(values: list[Any]) -> list[Any]:
    """The rows of MLflow's forms `inputs` and `instances`, which arrive as one row's list."""
    if len(values) == 1 and isinstance(values[0], list | np.ndarray):
        inner = list(values[0])
        if any(isinstance(one, str) for one in inner) or _is_stack(inner):
            return inner
    return values


def _is_stack(rows: list[Any]) -> bool:
    """Whether these are several images (H, W, 3), not the lines of one."""
    try:
        return np.ndim(rows) == 4
    except ValueError:  # ragged
        return False


def content(value: Any, max_bytes: int) -> bytes:
    """The bytes of the image file that a row holds, names, or is the pixels of.

    Args:
        value: As `Service.predict` takes it.
        max_bytes: Of the file.

    Raises:
        BadImage: It is none of these, or too large.
        OSError: The file cannot be read.
    """
    match value:
        case bytes() | bytearray() | memoryview():
            content = bytes(value)
        case str():
            content = _from_base64(value, max_bytes)
        case Path():
            content = value.read_bytes()
        case list() | np.ndarray():
            content = _from_array(value)
        case _:
            raise BadImage(f"not an image: {_WANTED}, got {_named(value)}")
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    return content


def _named(value: Any) -> str:
    """What a value is to who sent it as JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float() | np.number():
            return f"the number {value}"
        case dict():
            return "an object"
    return "something else"


_WANTED = "a row has the base64 of an image file, or an array (H, W, 3) of 0 to 255"


def _from_base64(text: str, max_bytes: int) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) * 3 // 4 > max_bytes + 2:
        raise _too_large(len(text) * 3 // 4, max_bytes)
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadImage(f"not base64: {error}") from error


def _from_array(value: Any) -> bytes:
    """A PNG of these pixels, so that the one decoder sees them."""
    try:
        pixels = np.asarray(value)
        fits = pixels.ndim in (2, 3) and pixels.size and pixels.shape[2:] in ((), (3,))
        if not fits or pixels.min() < 0 or pixels.max() > 255 or (pixels % 1).any():
            raise ValueError
    except (TypeError, ValueError) as error:
        raise BadImage(f"not an image: {_WANTED}") from error
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _too_large(size: int, limit: int) -> BadImage:
    return BadImage(f"too large: {size / 1e6:.1f} MB, at most {limit / 1e6:g}")
