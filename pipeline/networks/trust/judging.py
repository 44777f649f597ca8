"""Turn a network's outputs into answers: prediction, known or unknown, what else is possible.

The same for evaluate, predict, HTTP and pyfunc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.predictions import Trust
from pipeline.data.tasks import Task
from pipeline.errors import InputError
from pipeline.networks.trust import typicality
from pipeline.networks.trust.reference import Reference
from pipeline.networks.trust.typicality import Floats

UNKNOWN, COVERAGE = 0.05, 0.9
"""Defaults of section `serve`."""


@dataclass(frozen=True)
class Answers(Trust):
    """Answers for N images.

    Attributes:
        probabilities: (N, K) float32 outputs.
        strangeness: (N,) negative log of how rarely a validation image is as unusual.
    """

    probabilities: NDArray[np.float32]
    strangeness: Floats

    def of(self, part: slice) -> Answers:
        """Return the answers for some of the images."""
        parts: dict[str, Any] = {k: v if v is None else v[part] for k, v in vars(self).items()}
        return Answers(**parts)

    def answer(self, row: int, task: Task, classes: Sequence[str]) -> dict[str, Any]:
        """Return everything about an image as plain values; `task` and `classes` of the model."""
        return {
            **task.answered(self.probabilities[row], self.decided[row], classes),
            "known": bool(self.known[row]),
            "typicality": float(self.typicality[row]),
            **task.ranged(None if self.regions is None else self.regions[row], classes),
        }


class Judge:
    """Judges how reliable answers are.

    Args:
        reference: Reference data from the model file.
        task: What is predicted.
        classes: K names.
        unknown: Fraction of ordinary images that may be flagged as unknown.
        coverage: Fraction of images whose prediction set contains the true label.
        insist: Require prediction sets, instead of returning them if possible.

    Attributes:
        gives_sets: True if answers include prediction sets.
        lacks: What is missing for them; empty if nothing is.

    Raises:
        InputError: Sets are required, and there are too few calibration images.
    """

    def __init__(
        self,
        reference: Reference,
        task: Task,
        classes: Sequence[str],
        unknown: float = UNKNOWN,
        coverage: float = COVERAGE,
        insist: bool = False,
    ) -> None:
        self._reference, self._task, self._classes = reference, task, classes
        self._unknown = unknown
        misses = reference.misses
        # Split conformal prediction: every rank of a new image among these is equally likely.
        rank = _ceiling((len(misses) + 1) * coverage)
        self.lacks = ""
        if rank > len(misses):
            self.lacks = (
                f"a coverage of {coverage:g} needs at least {_ceiling(coverage / (1 - coverage))} "
                f"calibration images, the model has {len(misses)}: "
                f"{'raise' if len(misses) else 'set'} prepare.calibration_fraction, and run dvc "
                "repro"
            )
        if insist and self.lacks:
            raise InputError(self.lacks)
        self._reach = float(misses[rank - 1]) if 0 < rank <= len(misses) else None
        self.gives_sets = self._reach is not None

    def __call__(self, outputs: NDArray[np.float32]) -> Answers:
        """Judge a network's outputs.

        Args:
            outputs: (N, K + D): those of the task, then features.
        """
        width, reference, task = len(self._classes), self._reference, self._task
        own, places = outputs[:, :width], typicality.positions(reference.space, outputs[:, width:])
        strange = typicality.strangeness(
            typicality.distances(reference.space, places),
            task.doubts(own),
            reference.distances,
            reference.doubts,
        )
        typical = typicality.shares(strange, reference.strangeness)
        decided = task.decided(own, reference.thresholds, self._classes)
        regions = None if self._reach is None else task.regions(own, self._reach)
        return Answers(typical, typical > self._unknown, regions, places, decided, own, strange)


def _ceiling(value: float) -> int:
    """Round up, ignoring rounding errors."""
    return math.ceil(round(value, 9))
