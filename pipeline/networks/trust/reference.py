"""The images that a classifier was made with, as it sees them: kept in its model file.

outputs of the network for training, validation and calibration images -> `Reference` <-> files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data import traits as traits_of
from pipeline.data.manifest import CALIBRATION, Manifest
from pipeline.networks.forward import Forward
from pipeline.networks.trust import typicality
from pipeline.networks.trust.typicality import Floats, Space

_TRAITS = "traits.json"
_TRAINING, _VALIDATION = 2000, 5000
"""Images at most: enough to tell what is usual, few enough to travel with the model."""


@dataclass(frozen=True)
class Reference:
    """What answers are compared with.

    Attributes:
        space: Where the training images lie.
        distances: (V,) of the validation images to the training images, ascending.
        doubts: (V,) one minus the probability of their predicted class, ascending.
        strangeness: (V,) of both together, ascending.
        misses: (C,) one minus the probability of the true class of the calibration images,
            ascending; empty where none were set aside.
        traits: Of the validation images, what `check` compares: name -> (V,) values.
    """

    space: Space
    distances: Floats
    doubts: Floats
    strangeness: Floats
    misses: Floats
    traits: Mapping[str, list[float]]

    def files(self) -> dict[str, bytes]:
        """Name -> content; the same bytes for the same values."""
        arrays = {name: getattr(self, name) for name in _ARRAYS} | vars(self.space)
        files = {f"{name}.npy": _packed(array) for name, array in arrays.items()}
        traits = {name: list(values) for name, values in self.traits.items()}
        return files | {_TRAITS: json.dumps(traits, sort_keys=True).encode()}


_ARRAYS = ("distances", "doubts", "strangeness", "misses")


def read(files: Mapping[str, bytes]) -> Reference:
    """Read what `Reference.files` gave."""
    arrays: dict[str, Any] = {
        name.removesuffix(".npy"): _unpacked(content)
        for name, content in files.items()
        if name.endswith(".npy")
    }
    space = Space(**{one.name: arrays.pop(one.name) for one in fields(Space)})
    return Reference(space, **arrays, traits=json.loads(files[_TRAITS]))


def gather(forward: Forward, data: Manifest, seed: int) -> Reference:
    """Push the images once through the classifier, as they are.

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
    return make(
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
    shown = tqdm(rows, "traits", unit="image", delay=1, leave=False, disable=None)
    found = [
        traits_of.of(data.images[row], data.rows[row].width, data.rows[row].height) for row in shown
    ]
    return {name: [one[name] for one in found] for name in traits_of.NAMES}


def make(
    known: NDArray[np.float32],
    validation: NDArray[np.float32],
    calibration: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    traits: Mapping[str, list[float]],
) -> Reference:
    """From what the network gives for the images: (., K + D), probabilities, then features.

    Args:
        known: Of training images.
        validation: Of validation images.
        calibration: Of calibration images.
        labels: (C,) of the calibration images.
        classes: K.
        traits: Of the validation images.
    """
    space = typicality.space(known[:, classes:])
    positions = typicality.positions(space, validation[:, classes:])
    distances = typicality.distances(space, positions)
    doubts = typicality.doubts(validation[:, :classes])
    ranked = np.sort(distances), np.sort(doubts)
    strangeness = np.sort(typicality.strangeness(distances, doubts, *ranked))
    own = calibration[np.arange(len(labels)), labels].astype(np.float64)
    return Reference(space, *ranked, strangeness, np.sort(1 - own), traits)


def _packed(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(content: bytes) -> NDArray[np.generic]:
    array: NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
