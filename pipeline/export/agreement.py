"""Whether an exported network does what the Keras model does, on images with labels.

network + test images -> `Agreement`, or one line that says what is wrong with it.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.image_file import Pixels
from pipeline.errors import InputError
from pipeline.export.formats import FORMATS, Floats, Network

TOLERANCE = 1e-3
"""Of probabilities in float32: sums in another order stay far below it."""


@dataclass(frozen=True)
class Agreement:
    """How a network compares with the Keras model it was made from.

    Attributes:
        same_class: Share of the images that both put in the same class.
        max_difference: Of two probabilities.
        mean_difference: Of two probabilities, absolute.
        accuracy: Of the network itself.
        size_mb: On disk.
        images_per_s: On this machine, with the model's threads.
    """

    same_class: float
    max_difference: float
    mean_difference: float
    accuracy: float
    size_mb: float
    images_per_s: float

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.4f}  same class {self.same_class:.4f}  "
            f"difference max {self.max_difference:.1e} mean {self.mean_difference:.1e}  "
            f"{self.size_mb:7.2f} MB  {self.images_per_s:7.0f} images/s"
        )


class Check:
    """Compares networks with Keras' on test images.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) class indices.
        keras: The network all others must agree with.
        batch_size: Of a forward pass.
        min_agreement: Share of the images that a quantised network must put in Keras' class.
    """

    def __init__(
        self,
        images: Pixels,
        labels: NDArray[np.int64],
        keras: Network,
        batch_size: int,
        min_agreement: float,
    ) -> None:
        self._images = images
        self._labels = labels
        self._batch_size = batch_size
        self._min_agreement = min_agreement
        self._expected, self._keras_per_s = self._run(keras, "keras", sys.stderr)

    def keras(self, path: Path) -> Agreement:
        """Keras beside itself; `path` is its file."""
        return self._agreement(self._expected, path, self._keras_per_s)

    def __call__(self, name: str, network: Network, path: Path, stderr: TextIO) -> Agreement:
        """Compare a network; `path` is its file or folder.

        Raises:
            InputError: It agrees less than a correct export does.
        """
        found, per_s = self._run(network, name, stderr)
        agreement = self._agreement(found, path, per_s)
        if FORMATS[name].quantised:
            if not agreement.same_class >= self._min_agreement:
                raise InputError(
                    f"{name} must give Keras' class for at least {self._min_agreement} of the test "
                    f"images, got {agreement.same_class:.4f} of {len(found)}: not put in place; "
                    "lower --min-agreement, or export tflite, which keeps float32"
                )
            return agreement
        second, first = np.sort(self._expected, 1)[:, -2:].T
        differ = (found.argmax(1) != self._expected.argmax(1)) & (first - second > TOLERANCE)
        if differ.any() or not agreement.max_difference <= TOLERANCE:
            raise InputError(
                f"{name} must give Keras' classes and its probabilities within {TOLERANCE}, got "
                f"another class for {differ.sum()} of {len(found)} test images and a difference "
                f"of {agreement.max_difference:.1e}: not put in place; export another format"
            )
        return agreement

    def _run(self, network: Network, name: str, stderr: TextIO) -> tuple[Floats, float]:
        """The probabilities, and images per second."""
        network(self._batch(0))  # the first pass also allocates and traces
        rows: list[Floats] = []
        begin = time.perf_counter()
        with tqdm(
            total=len(self._images),
            desc=name,
            unit="image",
            file=stderr,
            disable=None,
            leave=False,
        ) as bar:
            for start in range(0, len(self._images), self._batch_size):
                rows.append(network(self._batch(start)))
                bar.update(len(rows[-1]))
        return np.concatenate(rows), len(self._images) / (time.perf_counter() - begin)

    def _batch(self, start: int) -> Floats:
        return self._images[start : start + self._batch_size].astype(np.float32)

    def _agreement(self, found: Floats, path: Path, per_s: float) -> Agreement:
        difference = np.abs(found - self._expected)
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        return Agreement(
            same_class=float((found.argmax(1) == self._expected.argmax(1)).mean()),
            max_difference=float(difference.max()),
            mean_difference=float(difference.mean()),
            accuracy=float((found.argmax(1) == self._labels).mean()),
            size_mb=sum(file.stat().st_size for file in files) / 1e6,
            images_per_s=per_s,
        )
