"""Reference data of a classifier's training images, stored in its model file.

outputs for training, validation and calibration images -> `Reference` <-> files.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import traits as traits_of
from pipeline.data.manifest import CALIBRATION, Manifest
from pipeline.data.tasks import Outputs, Targets, Task
from pipeline.networks.trust import typicality
from pipeline.networks.trust.typicality import Floats, Space
from pipeline.storage import progress

_TRAITS = "traits.json"
_TRAINING, _VALIDATION = 2000, 5000
"""Maximum numbers of images: enough to estimate what is usual, small enough to ship."""


@dataclass(frozen=True)
class Reference:
    """Reference data that answers are compared with.

    Attributes:
        space: Reduced features of training images.
        distances: (V,) from validation images to training images, ascending.
        doubts: (V,) how unsure the answers are, ascending.
        strangeness: (V,) both combined, ascending.
        misses: (C,) how far the truth is from the answer for calibration images, ascending; empty
            if there are none.
        traits: Traits of the validation images, for `check`: name -> (V,) values.
        thresholds: What decides an answer; empty if nothing does.
    """

    space: Space
    distances: Floats
    doubts: Floats
    strangeness: Floats
    misses: Floats
    traits: Mapping[str, list[float]]
    thresholds: Floats = field(default_factory=lambda: np.zeros(0))

    def files(self) -> dict[str, bytes]:
        """Serialize to name -> content; the same bytes for the same values."""
        arrays = {name: getattr(self, name) for name in _ARRAYS} | vars(self.space)
        if len(self.thresholds):
            arrays["thresholds"] = self.thresholds
        files = {f"{name}.npy": _packed(array) for name, array in arrays.items()}
        traits = {name: list(values) for name, values in self.traits.items()}
        return files | {_TRAITS: json.dumps(traits, sort_keys=True).encode()}


_ARRAYS = ("distances", "doubts", "strangeness", "misses")


def read(files: Mapping[str, bytes]) -> Reference:
    """Read the result of `Reference.files`."""
    arrays: dict[str, Any] = {
        name.removesuffix(".npy"): _unpacked(content)
        for name, content in files.items()
        if name.endswith(".npy")
    }
    space = Space(**{item.name: arrays.pop(item.name) for item in fields(Space)})
    return Reference(space, **arrays, traits=json.loads(files[_TRAITS]))


def sampled(data: Manifest, seed: int) -> list[NDArray[np.int64]]:
    """Choose the training, validation and calibration images that the reference is made of."""
    return [
        _chosen(data.indices("train"), _TRAINING, seed),
        _chosen(data.indices("val"), _VALIDATION, seed),
        data.indices(CALIBRATION),
    ]


def gather(outputs: Outputs, rows: list[NDArray[np.int64]], data: Manifest) -> Reference:
    """Make the reference data of a dataset.

    Args:
        outputs: Of the classifier for the images from `sampled`, unaugmented: probabilities, then
            features.
        rows: From `sampled`.
        data: The prepared dataset.
    """
    _, validation, calibration = rows
    parts = np.split(outputs, np.cumsum([len(part) for part in rows[:-1]]))
    traits = _traits(data, validation)
    truth = data.targets[validation], data.targets[calibration]
    return make(data.task, parts, truth, len(data.classes), traits)


def _chosen(rows: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Sample at most `most` rows, ascending."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:most])


def _traits(data: Manifest, rows: NDArray[np.int64]) -> dict[str, list[float]]:
    bar = progress.bar(rows, "traits")
    values = [
        traits_of.of(data.images[row], data.rows[row].width, data.rows[row].height) for row in bar
    ]
    return {name: [item[name] for item in values] for name in traits_of.NAMES}


def make(
    task: Task,
    outputs: Sequence[Outputs],
    targets: tuple[Targets, Targets],
    classes: int,
    traits: Mapping[str, list[float]],
) -> Reference:
    """Compute reference data from network outputs (., K + D): those of the task, then features.

    Args:
        task: What is predicted.
        outputs: Of training, validation and calibration images.
        targets: Of validation and calibration images.
        classes: K.
        traits: Traits of the validation images; the task's own is added.
    """
    training, validation, calibration = outputs
    space = typicality.space(training[:, classes:])
    positions = typicality.positions(space, validation[:, classes:])
    distances = typicality.distances(space, positions)
    own = validation[:, :classes]
    doubts = task.doubts(own)
    ranked = np.sort(distances), np.sort(doubts)
    strangeness = np.sort(typicality.strangeness(distances, doubts, *ranked))
    misses = np.sort(task.misses(targets[1], calibration[:, :classes]))
    name, values = task.trait(own)
    thresholds = task.thresholds(targets[0], own)
    return Reference(space, *ranked, strangeness, misses, {**traits, name: values}, thresholds)


def _packed(array: NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(content: bytes) -> NDArray[np.generic]:
    array: NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
