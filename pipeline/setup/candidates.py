"""Compare backbones on a sample of the images: accuracy, speed and size.

backbones + sample -> cross-validated logistic regression on the features of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data import image_file
from pipeline.data.image_file import Pixels
from pipeline.errors import InputError
from pipeline.intake import sources
from pipeline.intake.sources import SourceConfig
from pipeline.networks.backbones import Backbone
from pipeline.setup.source import Survey

if TYPE_CHECKING:
    import keras

SAMPLE = 1_000
_BATCH = 32
_TIMED = 64
_LOST = 0.05
"""Accepted loss of accuracy on mirrored images."""


@dataclass(frozen=True)
class Tried:
    """Result for a backbone on a sample.

    Attributes:
        name: Name on the command line.
        accuracy: (F,) accuracy on each held-out fold.
        ms_per_image: Milliseconds per image of a forward pass.
        megabytes: Size of the weights.
        images: Number of images in the sample.
    """

    name: str
    accuracy: NDArray[np.float64]
    ms_per_image: float
    megabytes: float
    images: int

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy.mean():.3f} "
            f"({self.accuracy.min():.3f} to {self.accuracy.max():.3f})  "
            f"{self.ms_per_image:.1f} ms/image  {self.megabytes:.0f} MB"
        )


def sample(
    source: SourceConfig, survey: Survey, size_px: int, most: int = SAMPLE
) -> tuple[Pixels, NDArray[np.int64]]:
    """Sample training images, evenly over the classes: (M, size, size, 3) and their labels.

    Args:
        source: Section `data`.
        survey: Survey of the source.
        size_px: Side of the square.
        most: Maximum number of images.
    """
    own: dict[str, list[str]] = {name: [] for name in survey.classes}
    for row in survey.rows:
        if row.verdict == "ok" and row.split == "train":
            own[row.label].append(row.path)
    share = max(2, most // len(own))
    wanted = {
        path: place
        for place, (_, paths) in enumerate(own.items())
        for path in paths[:: max(1, -(-len(paths) // share))]
    }
    pending, labels = [], []
    with ThreadPoolExecutor() as threads:
        for image in sources.images(source, "sample"):
            if image.path in wanted:
                pending.append(threads.submit(image_file.decode, image.read(), size_px))
                labels.append(wanted[image.path])
        decoded = [item.result().pixels for item in pending]
    return np.stack(decoded), np.array(labels, dtype=np.int64)


def milliseconds(model: keras.Model, images: Pixels) -> float:
    """Measure the milliseconds per image of a forward pass, in batches."""
    from pipeline.networks.keras_forward import KerasForward

    forward = KerasForward(model, _BATCH)
    few = np.resize(images, (_TIMED, *images.shape[1:]))
    forward(few[:_BATCH])  # traces it
    started = time.perf_counter()
    forward.all(few)
    return (time.perf_counter() - started) / len(few) * 1000


def attempt(
    name: str,
    backbone: Backbone,
    images: Pixels,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> Tried:
    """Evaluate a backbone.

    Args:
        name: Name on the command line.
        backbone: The network with its weights.
        images: (M, size, size, 3).
        labels: (M,) class indices.
        seed: Seed of the folds.
        threads: Threads for linear algebra.

    Raises:
        InputError: Fewer than two classes have two images each.
    """
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import logistic

    enough = np.bincount(labels)[labels] > 1  # one to fit, one to evaluate
    images, labels = images[enough], np.unique(labels[enough], return_inverse=True)[1]
    if len(set(labels)) < 2:
        raise InputError(
            "--try needs 2 classes with 2 training images each: use --backbone instead"
        )
    features = KerasForward(backbone.model, _BATCH).all(images, None, f"features of {name}")
    accuracy = logistic.left_out(features, labels, seed=seed, threads=threads)
    speed = milliseconds(backbone.model, images)
    size = 4 * backbone.model.count_params() / 1e6
    return Tried(name, accuracy, speed, size, len(labels))


def best(tried: Iterable[Tried]) -> Tried:
    """Return the most accurate result; the faster one if equal."""
    return min(tried, key=lambda result: (-result.accuracy.mean(), result.ms_per_image))


def may_be_mirrored(
    backbone: Backbone,
    images: Pixels,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> tuple[bool, str]:
    """Evaluate mirrored images with a regression fitted to other, unmirrored ones.

    Args:
        backbone: The network with its weights.
        images: (M, size, size, 3).
        labels: (M,) class indices.
        seed: Seed for the half that is fitted.
        threads: Threads for linear algebra.

    Returns:
        True if they are recognised about as well, and an explanation.
    """
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import logistic

    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    if len(set(labels[half])) < len(set(labels)):
        return False, "too few images to test whether flips are safe"
    forward = KerasForward(backbone.model, _BATCH)
    straight = forward.all(images, None, "features")
    mirrored = forward.all(images[~half][:, :, ::-1], None, "features, mirrored")
    classes = int(labels.max()) + 1
    fitted = logistic.fit(
        straight[half], labels[half], classes=classes, balanced=False, seed=seed, threads=threads
    )

    def accuracy(features: NDArray[np.float32]) -> float:
        scores = features @ fitted.weights + fitted.biases
        return float((scores.argmax(axis=1) == labels[~half]).mean())

    as_is, turned = accuracy(straight[~half]), accuracy(mirrored)
    shares = (
        f"{100 * turned:.0f} % of mirrored images are recognised ({100 * as_is:.0f} % unmirrored)"
    )
    if turned >= as_is - _LOST:
        return True, f"flips are safe here: {shares}"
    return False, f"no flips, which change the content: {shares}"
