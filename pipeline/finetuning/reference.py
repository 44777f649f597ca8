"""What a classifier says of the pictures that it was made with, for its model file.

forward pass + prepared pictures -> `Reference`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data import traits
from pipeline.data.manifest import CALIBRATION, Manifest
from pipeline.networks.forward import Forward
from pipeline.networks.trust import reference
from pipeline.networks.trust.reference import Reference

_TRAINING, _VALIDATION = 2000, 5000
"""Pictures at most: enough to tell what is usual, few enough to travel with the model."""


def gather(forward: Forward, data: Manifest, seed: int) -> Reference:
    """Push the pictures once through the classifier, as they are.

    Args:
        forward: Gives (N, K + D): probabilities, then features.
        data: The prepared data set.
        seed: Chooses which, where there are many.
    """
    training = _chosen(data.indices("train"), _TRAINING, seed)
    validation = _chosen(data.indices("val"), _VALIDATION, seed)
    calibration = data.indices(CALIBRATION)
    every = np.concatenate([training, validation, calibration])
    outputs = forward.all(data.images, every, "reference")
    known, shown, aside = np.split(outputs, np.cumsum([len(training), len(validation)]))
    predicted = shown[:, : len(data.classes)].argmax(axis=1)
    return reference.make(
        known,
        shown,
        aside,
        data.labels[calibration],
        len(data.classes),
        {**_traits(data, validation), "label": predicted.tolist()},
    )


def _chosen(rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Some of them, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def _traits(data: Manifest, rows: NDArray[np.int64]) -> dict[str, list[float]]:
    shown = tqdm(rows, "traits", unit="picture", delay=1, leave=False, disable=None)
    found = [
        traits.of(data.images[row], data.rows[row].width, data.rows[row].height) for row in shown
    ]
    return {name: [one[name] for one in found] for name in traits.NAMES}
