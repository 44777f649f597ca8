"""Whether pictures may be mirrored: letters may not, animals may.

sample + backbone -> whether a classifier of the pictures as they are knows mirrored ones, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import Pixels

if TYPE_CHECKING:
    from pipeline.networks.backbones import Backbone

_BATCH = 32
_LOST = 0.05
"""Accuracy that mirrored pictures may cost before they count as something else."""


def harmless(
    backbone: Backbone,
    pictures: Pixels,
    labels: NDArray[np.int64],
    *,
    seed: int,
    threads: int,
) -> tuple[bool, str]:
    """Judge mirrored pictures by a regression that was fitted to others as they are.

    Args:
        backbone: The network with its weights.
        pictures: (M, size, size, 3).
        labels: (M,) class indices.
        seed: Of which half is fitted to.
        threads: Of the linear algebra.

    Returns:
        Whether they are recognised about as well, and the figures.
    """
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import logistic

    forward = KerasForward(backbone.model, _BATCH)
    straight = forward.all(pictures, None, "features")
    mirrored = forward.all(pictures[:, :, ::-1], None, "features, mirrored")
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    if len(set(labels[half])) < len(set(labels)):
        return False, "too few pictures to tell whether they may be mirrored"
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
