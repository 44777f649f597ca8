"""Turn a network's outputs into answers: probabilities, known or unknown, prediction sets.

The same for evaluate, predict, HTTP and pyfunc. Source of the sets: Sadinle, Lei and Wasserman
2019, Least Ambiguous Set-Valued Classifiers with Bounded Error Levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.networks.trust import typicality
from pipeline.networks.trust.reference import Reference
from pipeline.networks.trust.typicality import Floats

UNKNOWN, COVERAGE = 0.05, 0.9
"""Defaults of section `serve`."""


@dataclass(frozen=True)
class Answers:
    """Answers for N images.

    Attributes:
        probabilities: (N, K) float32.
        strangeness: (N,) negative log of how rarely a validation image is as unusual.
        typicality: (N,) fraction of validation images that are at least as unusual.
        known: (N,) True if that is more than `unknown`.
        labels: (N, K) labels in the prediction set; None without calibration images.
        positions: (N, d) reduced features.
    """

    probabilities: NDArray[np.float32]
    strangeness: Floats
    typicality: Floats
    known: NDArray[np.bool_]
    labels: NDArray[np.bool_] | None
    positions: Floats

    def of(self, part: slice) -> Answers:
        """Return the answers for some of the images."""
        parts: dict[str, Any] = {k: v if v is None else v[part] for k, v in vars(self).items()}
        return Answers(**parts)

    def trusted(self, row: int, classes: Sequence[str]) -> dict[str, Any]:
        """Return known, typicality and labels of an image as plain values."""
        sets = None if self.labels is None else np.flatnonzero(self.labels[row])
        return {
            "known": bool(self.known[row]),
            "typicality": float(self.typicality[row]),
            "labels": None if sets is None else [classes[int(place)] for place in sets],
        }


class Judge:
    """Judges how reliable answers are.

    Args:
        reference: Reference data from the model file.
        classes: K.
        unknown: Fraction of ordinary images that may be flagged as unknown.
        coverage: Fraction of images whose prediction set contains the true label.
        insist: Require prediction sets, instead of returning them if possible.

    Attributes:
        gives_sets: True if answers include prediction sets.

    Raises:
        InputError: Sets are required, and there are too few calibration images.
    """

    def __init__(
        self,
        reference: Reference,
        classes: int,
        unknown: float = UNKNOWN,
        coverage: float = COVERAGE,
        insist: bool = False,
    ) -> None:
        self._reference, self._classes, self._unknown = reference, classes, unknown
        misses = reference.misses
        # Split conformal prediction: every rank of a new image among these is equally likely.
        rank = _ceiling((len(misses) + 1) * coverage)
        if insist and rank > len(misses):
            needed = _ceiling(coverage / (1 - coverage))
            raise InputError(
                f"a coverage of {coverage:g} needs at least {needed} calibration images, the "
                f"model has {len(misses)}: set prepare.calibration_fraction and run dvc repro"
            )
        self._most_missed = misses[rank - 1] if 0 < rank <= len(misses) else None
        self.gives_sets = self._most_missed is not None

    def __call__(self, outputs: NDArray[np.float32]) -> Answers:
        """Judge a network's outputs.

        Args:
            outputs: (N, K + D): probabilities, then features.
        """
        probabilities, features = outputs[:, : self._classes], outputs[:, self._classes :]
        places = typicality.positions(self._reference.space, features)
        strange = _strangeness(probabilities, places, self._reference)
        typical = typicality.shares(strange, self._reference.strangeness)
        known, labels = typical > self._unknown, None
        if self._most_missed is not None:
            labels = 1 - probabilities.astype(np.float64) <= self._most_missed
            # If no label is likely enough, include the best one: coverage does not decrease.
            labels[np.arange(len(labels)), probabilities.argmax(axis=1)] = True
        return Answers(probabilities, strange, typical, known, labels, places)


def _ceiling(value: float) -> int:
    """Round up, ignoring rounding errors."""
    return math.ceil(round(value, 9))


def _strangeness(
    probabilities: NDArray[np.float32], positions: Floats, reference: Reference
) -> Floats:
    return typicality.strangeness(
        typicality.distances(reference.space, positions),
        typicality.doubts(probabilities),
        reference.distances,
        reference.doubts,
    )
