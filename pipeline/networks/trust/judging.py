"""What a network gives -> answers: probabilities, whether it knows such images, sets of labels.

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
    """Of some images.

    Attributes:
        probabilities: (N, K) float32.
        strangeness: (N,) how rarely a validation image is as far away and as doubtful.
        typicality: (N,) share of validation images that are at least as strange.
        known: (N,) whether that is more than `unknown`.
        labels: (N, K) which labels are in the set; None without calibration images.
        positions: (N, d) where the images lie.
    """

    probabilities: NDArray[np.float32]
    strangeness: Floats
    typicality: Floats
    known: NDArray[np.bool_]
    labels: NDArray[np.bool_] | None
    positions: Floats

    def of(self, row: int) -> Answers:
        """Those of one image."""
        one = slice(row, row + 1)
        parts: dict[str, Any] = {k: v if v is None else v[one] for k, v in vars(self).items()}
        return Answers(**parts)

    def trusted(self, row: int, classes: Sequence[str]) -> dict[str, Any]:
        """known, typicality and labels of an image, as JSON has them."""
        sets = None if self.labels is None else np.flatnonzero(self.labels[row])
        return {
            "known": bool(self.known[row]),
            "typicality": float(self.typicality[row]),
            "labels": None if sets is None else [classes[int(place)] for place in sets],
        }


class Judge:
    """Tells how far answers can be relied on.

    Args:
        reference: That is in the model file.
        classes: K.
        unknown: Share of images like those of validation that may be called unknown.
        coverage: Share of images whose set of labels has the true one.
        insist: Whether sets are asked for, not only wanted where they can be had.

    Attributes:
        gives_sets: Whether answers have sets of labels.

    Raises:
        InputError: Sets are asked for, and the calibration images do not suffice.
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
        # Split conformal prediction: a new image's rank among these is as likely as any other.
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
        """Judge what the network gave.

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
            # Of an image that no label suits well enough, the best one: that covers no less.
            labels[np.arange(len(labels)), probabilities.argmax(axis=1)] = True
        return Answers(probabilities, strange, typical, known, labels, places)


def _ceiling(value: float) -> int:
    """The next whole number; what is one but for rounding counts as it."""
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
