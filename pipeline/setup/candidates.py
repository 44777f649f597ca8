"""Compare backbones on a sample of the images: accuracy, speed and size.

backbones + sample -> cross-validated logistic regression on the features of each.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data import image_file
from pipeline.data.image_file import Pixels
from pipeline.data.tasks import Fit, Targets, Task
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
_FOLDS = 3
_LOST = 0.05
"""Accepted loss of accuracy on mirrored images."""


@dataclass(frozen=True)
class Tried:
    """Result for a backbone on a sample.

    Attributes:
        name: Name on the command line.
        quality: Name of the task's metric.
        values: (F,) that metric on each held-out fold.
        ms_per_image: Milliseconds per image of a forward pass.
        megabytes: Size of the weights.
        images: Number of images in the sample.
    """

    name: str
    quality: str
    values: NDArray[np.float64]
    ms_per_image: float
    megabytes: float
    images: int

    def __str__(self) -> str:
        return (
            f"{self.quality} {self.values.mean():.3f} "
            f"({self.values.min():.3f} to {self.values.max():.3f})  "
            f"{self.ms_per_image:.1f} ms/image  {self.megabytes:.0f} MB"
        )


@dataclass(frozen=True)
class Sampled:
    """Training images with their labels.

    Attributes:
        images: (M, size, size, 3).
        targets: M targets.
        strata: (M,) classes, or groups of labels or numbers.
        task: What is predicted.
        width: K.
    """

    images: Pixels
    targets: Targets
    strata: NDArray[np.int64]
    task: Task
    width: int

    def of(self, rows: NDArray[np.int64]) -> Sampled:
        """Select some of them."""
        return replace(
            self, images=self.images[rows], targets=self.targets[rows], strata=self.strata[rows]
        )

    def measured(
        self,
        features: NDArray[np.float32],
        fitted: NDArray[np.int64],
        others: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]],
        seed: int,
        threads: int,
    ) -> list[float]:
        """Fit a head to some rows; returns the task's metric on others.

        Args:
            features: (M, D).
            fitted: Rows to fit to.
            others: (M, D) features, and the rows of them to evaluate.
            seed: Seed of the folds that choose the regularization.
            threads: Threads for linear algebra.
        """
        task, truth = self.task, self.targets[fitted]
        linear = task.fit(features[fitted], truth, Fit(self.width, seed, threads))
        outputs = [(task.applied(other[rows], linear, truth), rows) for other, rows in others]
        return [
            task.facts(self.targets[rows], own).values()[task.compared_by] for own, rows in outputs
        ]


def sample(source: SourceConfig, survey: Survey, size_px: int, most: int = SAMPLE) -> Sampled:
    """Sample training images, evenly over the classes."""
    task = survey.task
    chosen = [row for row in survey.rows if row.verdict == "ok" and row.split == "train"]
    own: dict[str, list[str]] = defaultdict(list)
    for row, kind in zip(chosen, task.strata([row.label for row in chosen]), strict=True):
        own[kind].append(row.path)
    share = max(2, most // len(own))
    wanted = {
        path: place
        for place, kind in enumerate(sorted(own))
        for path in own[kind][:: max(1, -(-len(own[kind]) // share))]
    }
    pending, labels, strata = [], [], []
    with ThreadPoolExecutor() as threads:
        for image in sources.images(source, "sample"):
            if image.path in wanted:
                pending.append(threads.submit(image_file.decode, image.read(), size_px))
                labels.append(image.label)
                strata.append(wanted[image.path])
        decoded = [item.result().pixels for item in pending]
    classes = task.classes(labels, task.noun)
    targets = task.targets(labels, classes)
    return Sampled(np.stack(decoded), targets, np.array(strata), task, len(classes))


def milliseconds(model: keras.Model, images: Pixels) -> float:
    """Measure the milliseconds per image of a forward pass, in batches."""
    from pipeline.networks.keras_forward import KerasForward

    forward = KerasForward(model, _BATCH)
    few = np.resize(images, (_TIMED, *images.shape[1:]))
    forward(few[:_BATCH])  # traces it
    started = time.perf_counter()
    forward.all(few)
    return (time.perf_counter() - started) / len(few) * 1000


def attempt(name: str, backbone: Backbone, sampled: Sampled, *, seed: int, threads: int) -> Tried:
    """Evaluate a backbone.

    Raises:
        InputError: Fewer than two classes have two images each.
    """
    from sklearn.model_selection import StratifiedKFold

    from pipeline.networks.keras_forward import KerasForward

    # One image to fit, one to evaluate; then every class is in every part that is fitted.
    counts = np.bincount(sampled.strata)
    enough = sampled.of(np.flatnonzero(counts[sampled.strata] > 1))
    if len(set(enough.strata)) < 2 and enough.task.has_strata:
        raise InputError(
            "--try needs 2 classes with 2 training images each: use --backbone instead"
        )
    images, strata = enough.images, enough.strata
    features = KerasForward(backbone.model, _BATCH).all(images, None, f"features of {name}")
    folds = StratifiedKFold(
        min(_FOLDS, int(counts[counts > 1].min())), shuffle=True, random_state=seed
    )
    values = [
        enough.measured(features, fitted, [(features, rows)], seed, threads)[0]
        for fitted, rows in folds.split(features, strata)
    ]
    speed = milliseconds(backbone.model, images)
    size = 4 * backbone.model.count_params() / 1e6
    return Tried(name, enough.task.compared_by, np.array(values), speed, size, len(images))


def may_be_mirrored(
    backbone: Backbone, sampled: Sampled, *, seed: int, threads: int
) -> tuple[bool, str]:
    """Evaluate mirrored images with a head fitted to other, unmirrored ones.

    Returns:
        True if they are recognised about as well, and an explanation.
    """
    from pipeline.networks.keras_forward import KerasForward

    task, images, strata = sampled.task, sampled.images, sampled.strata
    half = np.random.default_rng(seed).permutation(len(strata)) % 2 == 0
    if len(set(strata[half])) < len(set(strata)):
        return False, "too few images to test whether flips are safe"
    forward = KerasForward(backbone.model, _BATCH)
    straight = forward.all(images, None, "features")
    turned = straight.copy()
    turned[~half] = forward.all(images[~half][:, :, ::-1], None, "features, mirrored")
    rows = np.flatnonzero(~half)
    pairs = [(straight, rows), (turned, rows)]
    as_is, after = sampled.measured(straight, np.flatnonzero(half), pairs, seed, threads)
    name = task.compared_by.replace("_", " ")
    shares = f"{name} {after:.2f} on mirrored images, {as_is:.2f} unmirrored"
    if after >= as_is - _LOST:
        return True, f"flips are safe here: {shares}"
    return False, f"no flips, which change the content: {shares}"
