"""The classifier as an MLflow pyfunc: one image per row -> prediction, probabilities, trust.

A bad row only affects itself: its reason is in the column `error`. Rows of requests that arrive at
the same time share a forward pass of fixed shape, so answers do not depend on other requests. It
is packaged with the model: see logged_model.py.
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
"""Name of the input column."""

_ANSWER = ("prediction", "probability", "probabilities", "known", "typicality", "labels", "error")
_EMPTY = dict.fromkeys(_ANSWER)
_CHUNK = 256
_log = logging.getLogger(__name__)


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Service:
    """Load a logged file; MLflow calls this, and `predict` of the result."""
    limits = {**DEFAULTS, **(model_config or {})}
    trust = float(limits["unknown"]), float(limits["coverage"])
    classifier = Classifier(Path(path), True, *trust)
    if _is_server():
        page = about.page(classifier.card, limits, classifier.gives_sets)
        http_guard.install(int(limits["max_request_mb"] * 1e6), MAX_ROWS, page)
    return Service(classifier, int(MAX_IMAGE_MB * 1e6))


def _is_server() -> bool:
    from mlflow.pyfunc import scoring_server

    # MLflow sets this variable only for its server's workers, which nothing else identifies.
    return scoring_server._SERVER_MODEL_PATH in os.environ


class Service:
    """A classifier for use by many threads.

    Args:
        classifier: The classifier.
        max_bytes: Maximum size of an image file.
    """

    def __init__(self, classifier: Classifier, max_bytes: int) -> None:
        self._classifier = classifier
        self._max_bytes = max_bytes
        # As many images are decoded in parallel as there are processors: a large one may need
        # hundreds of MB.
        self._decoders = ThreadPoolExecutor(os.cpu_count())
        self._waiting: queue.SimpleQueue[tuple[Pixels, Future[Answers]]] = queue.SimpleQueue()
        threading.Thread(target=self._answer, daemon=True, name="forward").start()

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Classify images; never raises because of a row.

        Args:
            rows: A column `image`: the bytes of an image file, their base64 (also as a data URL),
                an array (H, W) or (H, W, 3) of 0 to 255, a PIL image, or a `pathlib.Path`, which
                JSON cannot contain: no client can name a file on the server.

        Returns:
            One row per image: prediction, probability (of the prediction), probabilities (class ->
            probability), known (False if unlike the training data), typicality (fraction of
            validation images that are at least as unusual), labels (the prediction set; None
            without calibration images), error (None, or the reason why the others are None).
        """
        answers: list[dict[str, Any]] = []
        values = _flat(list(rows[COLUMN])) if len(rows) else []
        ended = ending.current()
        decode = partial(self._decode, ended=ended)
        for start in range(0, len(values), _CHUNK):
            chunk = values[start : start + _CHUNK]
            pending = [self._submit(pixels) for pixels in self._decoders.map(decode, chunk)]
            answers += [self._as_row(item) for item in pending]
            if ended.is_set():
                raise ending.Ended
        # Objects, because None would otherwise become NaN, which JSON does not have.
        return pd.DataFrame(answers, columns=_ANSWER, dtype=object)

    def get_raw_model(self) -> Classifier:
        """Return the classifier itself, as MLflow's `get_raw_model`."""
        return self._classifier

    def _decode(self, value: Any, ended: threading.Event) -> Pixels | str:
        """Return the pixels, or why there are none."""
        if ended.is_set():
            return "the request has ended"
        try:
            return or_reason(lambda: self._classifier.decode(content(value, self._max_bytes)))
        except Exception:  # one row must not affect the others
            _log.exception("a row could not be decoded")
            return "damaged: this image could not be decoded"

    def _submit(self, decoded: Pixels | str) -> Future[Answers] | str:
        if isinstance(decoded, str):
            return decoded
        answer: Future[Answers] = Future()
        self._waiting.put((decoded, answer))
        return answer

    def _as_row(self, pending: Future[Answers] | str) -> dict[str, Any]:
        if isinstance(pending, str):
            return {**_EMPTY, "error": pending}
        try:
            answer = pending.result()
        except Exception:  # was logged where it happened
            message = "the network failed on this image; see the server's log"
            return {**_EMPTY, "error": message}
        classes = self._classifier.card.classes
        probabilities = dict(zip(classes, map(float, answer.probabilities[0]), strict=True))
        prediction = classes[int(answer.probabilities[0].argmax())]
        return {
            "prediction": prediction,
            "probability": probabilities[prediction],
            "probabilities": probabilities,
            **answer.trusted(0, classes),
            "error": None,
        }

    def _answer(self) -> None:
        """Answer waiting rows forever, up to a batch of them in one pass."""
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


def content(value: Any, max_bytes: int) -> bytes:
    """Return the bytes of the image file that a row contains, names, or has the pixels of.

    Args:
        value: As for `Service.predict`.
        max_bytes: Maximum size of the file.

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
        case Image.Image():
            content = _from_image(value)
        case _:
            raise BadImage(f"not an image: {_WANTED}, got {_named(value)}")
    if len(content) > max_bytes:
        raise _too_large(len(content), max_bytes)
    return content


def _named(value: Any) -> str:
    """Describe a value in JSON terms."""
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


_PNG_MODES = ("1", "L", "LA", "I;16", "P", "RGB", "RGBA")
_WANTED = "a row must have the base64 of an image file, or an array (H, W, 3) of 0 to 255"


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
    """Encode pixels as a PNG, so that everything passes the same decoder."""
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


def _from_image(image: Image.Image) -> bytes:
    """Encode a PIL image losslessly, with all that decoding its file would consider."""
    file = io.BytesIO()
    kind = "PNG" if image.mode in _PNG_MODES else "TIFF"
    profile = image.info.get("icc_profile")
    try:
        image.save(file, kind, exif=image.getexif(), icc_profile=profile, compress_level=0)
    except OSError as error:  # PIL reads the pixels now
        raise BadImage(f"damaged: {error}") from error
    return file.getvalue()


def _too_large(size: int, limit: int) -> BadImage:
    return BadImage(f"too large: {size / 1e6:.1f} MB, the limit is {limit / 1e6:g} MB")
