"""Backbones on a sample of the images: how good, how fast and how large each is.

backbones + sample -> a logistic regression on the features of each, judged by cross-validation.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
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
"""Accuracy that mirrored images may cost before they count as something else."""


@dataclass(frozen=True)
class Tried:
    """How a backbone does on a sample.

    Attributes:
        name: As it was asked for.
        accuracy: (F,) of each fold that was left out.
        ms_per_image: Milliseconds of a forward pass.
        megabytes: Of the weights.
        images: How many the sample has.
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
            f"{self.ms_per_image:.1f} ms an image  {self.megabytes:.0f} MB"
        )


def sample(
    source: SourceConfig, survey: Survey, size_px: int, most: int = SAMPLE
) -> tuple[Pixels, NDArray[np.int64]]:
    """Training images, evenly spread over the classes: (M, size, size, 3) and their labels.

    Args:
        source: Section `data`.
        survey: What is in it.
        size_px: Side of the square.
        most: How many images at most.
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
    decoded, labels = [], []
    for image in sources.images(source, "sample"):
        if image.path in wanted:
            decoded.append(image_file.decode(image.read(), size_px).pixels)
            labels.append(wanted[image.path])
    return np.stack(decoded), np.array(labels, dtype=np.int64)


def milliseconds(model: keras.Model, images: Pixels) -> float:
    """Of a forward pass of one image, in batches."""
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
    """Judge a backbone.

    Args:
        name: As it was asked for.
        backbone: The network with its weights.
        images: (M, size, size, 3).
        labels: (M,) class indices.
        seed: Of the folds.
        threads: Of the linear algebra.

    Raises:
        InputError: Fewer than two classes have two images each.
    """
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import logistic

    enough = np.bincount(labels)[labels] > 1  # one to fit to, one to judge on
    images, labels = images[enough], np.unique(labels[enough], return_inverse=True)[1]
    if len(set(labels)) < 2:
        raise InputError(
            "--try needs 2 classes with 2 training images each, got too few: choose with --backbone"
        )
    features = KerasForward(backbone.model, _BATCH).all(images, None, f"features of {name}")
    accuracy = logistic.left_out(features, labels, seed=seed, threads=threads)
    speed = milliseconds(backbone.model, images)
    size = 4 * backbone.model.count_params() / 1e6
    return Tried(name, accuracy, speed, size, len(labels))


def best(tried: Iterable[Tried]) -> Tried:
    """The most accurate; the faster of two that are equal."""
    return min(tried, key=lambda one: (-one.accuracy.mean(), one.ms_per_image))


def may_be_mirrored(
    backbone: Backbone,
    images: Pixels,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> tuple[bool, str]:
    """Judge mirrored images by a regression that was fitted to others as they are.

    Args:
        backbone: The network with its weights.
        images: (M, size, size, 3).
        labels: (M,) class indices.
        seed: Of which half is fitted to.
        threads: Of the linear algebra.

    Returns:
        Whether they are recognised about as well, and the figures.
    """
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import logistic

    forward = KerasForward(backbone.model, _BATCH)
    straight = forward.all(images, None, "features")
    mirrored = forward.all(images[:, :, ::-1], None, "features, mirrored")
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    if len(set(labels[half])) < len(set(labels)):
        return False, "too few images to tell whether they may be mirrored"
    classes = int(labels.max()) + 1
    fitted = logistic.fit(
        straight[half], labels[half], classes=classes, balanced=False, seed=seed, threads=threads
    )

    def accuracy(features: NDArray[np.float32]) -> float:
        scores = features[~half] @ fitted.weights + fitted.biases
        return float((scores.argmax(axis=1) == labels[~half]).mean())

    as_is, turned = accuracy(straight), accuracy(mirrored)
    figures = f"known mirrored as well as not: {turned:.2f} and {as_is:.2f} of a sample"
    if turned >= as_is - _LOST:
        return True, figures
    return False, f"not mirrored, which changes what they show: {turned:.2f} of {as_is:.2f} known"
