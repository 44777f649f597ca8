"""Check that an exported network agrees with the Keras model, on labelled images.

network + test images -> `Agreement`, or an error that says what is wrong.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.export.formats import FORMATS, Floats, Network

TOLERANCE = 1e-3
"""Tolerance for probabilities in float32: another summation order stays far below it."""


@dataclass(frozen=True)
class Agreement:
    """Comparison of a network with the Keras model it was converted from.

    Attributes:
        same_answer: Fraction of images with the same answer.
        max_difference: Maximum difference of two outputs.
        mean_difference: Mean absolute difference of two outputs.
        quality: Name of the task's metric.
        value: That metric of the network itself.
        size_mb: Size on disk.
        images_per_s: On this machine, with the model's threads.
    """

    same_answer: float
    max_difference: float
    mean_difference: float
    quality: str
    value: float
    size_mb: float
    images_per_s: float

    def __str__(self) -> str:
        return (
            f"{self.quality} {self.value:.4f}  same answer {self.same_answer:.4f}  "
            f"difference max {self.max_difference:.1e} mean {self.mean_difference:.1e}  "
            f"{self.size_mb:7.2f} MB  {self.images_per_s:7.0f} images/s"
        )


class Check:
    """Compares networks with Keras' on test images.

    Args:
        data: The prepared dataset.
        rows: (N,) images of it.
        keras: The reference network.
        batch_size: Batch size of a forward pass.
        min_agreement: Fraction of images for which a quantized network must give Keras' answer.
        thresholds: Those of the model.
    """

    def __init__(
        self,
        data: Manifest,
        rows: NDArray[np.int64],
        keras: Network,
        batch_size: int,
        min_agreement: float,
        thresholds: Sequence[float],
    ) -> None:
        self._images = data.images[rows]
        self._targets, self._task = data.targets[rows], data.task
        self._batch_size = batch_size
        self._min_agreement, self._thresholds = min_agreement, thresholds
        self._expected, self._keras_per_s = self._run(keras, "keras", sys.stderr)

    def keras(self, path: Path) -> Agreement:
        """Compare Keras with itself; `path` is its file."""
        return self._agreement(self._expected, path, self._keras_per_s)

    def __call__(self, name: str, network: Network, path: Path, stderr: TextIO) -> Agreement:
        """Compare a network; `path` is its file or folder.

        Raises:
            InputError: It agrees less than a correct export does.
        """
        predicted, per_s = self._run(network, name, stderr)
        agreement = self._agreement(predicted, path, per_s)
        if FORMATS[name].quantized:
            if not agreement.same_answer >= self._min_agreement:
                raise InputError(
                    f"{name} gives Keras' answer for {agreement.same_answer:.4f} of "
                    f"{len(predicted)} test images, at least {self._min_agreement} are required: "
                    "not exported; lower --min-agreement, or export tflite, which keeps float32"
                )
            return agreement
        least = self._task.tolerance(self._expected, TOLERANCE)
        differ = ~self._task.agree(predicted, self._expected, self._thresholds)
        differ &= np.abs(predicted - self._expected).max(axis=1) > least
        if differ.any() or not agreement.max_difference <= least:
            raise InputError(
                f"{name} must give Keras' answers with outputs within {least:.2g}, but "
                f"differs for {differ.sum()} of {len(predicted)} test images, by up to "
                f"{agreement.max_difference:.1e}: not exported; choose another format"
            )
        return agreement

    def _run(self, network: Network, name: str, stderr: TextIO) -> tuple[Floats, float]:
        """Compute the probabilities, and images per second."""
        network(self._batch(0))  # the first pass also allocates and traces
        rows: list[Floats] = []
        begin = time.perf_counter()
        with tqdm(
            total=len(self._images), desc=name, unit="image", file=stderr, disable=None, leave=False
        ) as bar:
            for start in range(0, len(self._images), self._batch_size):
                rows.append(network(self._batch(start)))
                bar.update(len(rows[-1]))
        return np.concatenate(rows), len(self._images) / (time.perf_counter() - begin)

    def _batch(self, start: int) -> Floats:
        return self._images[start : start + self._batch_size].astype(np.float32)

    def _agreement(self, predicted: Floats, path: Path, per_s: float) -> Agreement:
        difference, quality = np.abs(predicted - self._expected), self._task.quality
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return Agreement(
            same_answer=float(self._task.agree(predicted, self._expected, self._thresholds).mean()),
            max_difference=float(difference.max()),
            mean_difference=float(difference.mean()),
            quality=quality,
            value=self._task.judge(self._targets, predicted, "log_loss")[f"val_{quality}"],
            size_mb=sum(file.stat().st_size for file in files) / 1e6,
            images_per_s=per_s,
        )
