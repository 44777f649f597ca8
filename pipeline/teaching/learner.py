"""A head that is refitted after every few labels, in a fraction of a second.

features of all images + some labels -> probabilities of all images, and how good they are. The
features are reduced to their main directions once.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import resampling

Floats = NDArray[np.float64]

_DIRECTIONS = 128
_STRENGTH = 0.1
"""C of the regression on directions of unit variance: few labels need strong regularization."""
_STEPS = 30
_FOLDS, _MANY, _FOLDS_OF_MANY = 5, 1000, 2
"""With many labels, half of them make as good a head, in a fraction of the time."""
_CLEARLY = 0.5
"""How much more probable another class must be for a label to be doubted."""


@dataclass(frozen=True)
class Learned:
    """A head fitted to some labels.

    Attributes:
        classes: K names, sorted.
        probabilities: (N, K) of all images.
        rows: (M,) labelled rows of classes with at least two images.
        targets: (M,) their class indices.
        out_of_fold: (M, K) their probabilities, by heads that had not seen them.
    """

    classes: list[str]
    probabilities: Floats
    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    out_of_fold: Floats

    def guess(self, row: int) -> str:
        """Return the most probable class of an image; empty if there is nothing to choose from."""
        return self.classes[self.probabilities[row].argmax()] if len(self.classes) > 1 else ""

    def accuracy(self, sample: Collection[int]) -> tuple[float, float, float] | None:
        """Return the cross-validated accuracy on a sample, with its 95 % interval (Wilson).

        Args:
            sample: Labelled rows that were drawn at random: the others are harder than most.
        """
        chosen = np.isin(self.rows, list(sample))
        if not chosen.any():
            return None
        hits, count = self.out_of_fold.argmax(axis=1) == self.targets, int(chosen.sum())
        right = int(hits[chosen].sum())
        return right / count, *resampling.proportion(right, count)

    def doubts(self, most: int) -> list[tuple[int, str, float]]:
        """List labelled images of which other labels say something else, the clearest first.

        Returns:
            Row, the class that fits better, its probability.
        """
        if not len(self.rows):
            return []
        own = self.out_of_fold[np.arange(len(self.rows)), self.targets]
        best = self.out_of_fold.argmax(axis=1)
        gain = self.out_of_fold.max(axis=1) - own
        chosen = np.argsort(-gain, kind="stable")[:most]
        return [
            (int(self.rows[n]), self.classes[best[n]], float(self.out_of_fold[n, best[n]]))
            for n in chosen
            if gain[n] > _CLEARLY
        ]


class Learner:
    """Fits heads to features of N images.

    Args:
        features: (N, D).

    Attributes:
        reduced: (N, d) main directions, of unit variance on average.
    """

    def __init__(self, features: NDArray[np.float32]) -> None:
        from sklearn.decomposition import PCA

        deviation = features.std(axis=0)
        standard = (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
        most = min(_DIRECTIONS, *features.shape)
        with np.errstate(invalid="ignore"):  # copies of one image have no variance
            reduced = PCA(most, svd_solver="randomized", random_state=0).fit_transform(standard)
        self.reduced = reduced / max(float(np.sqrt((reduced**2).mean())), 1e-12)

    def fit(self, labels: Mapping[int, str], cross_validate: bool = True) -> Learned:
        """Fit a head to the labels of some rows, and cross-validate it."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        classes = sorted(set(labels.values()))
        rows = np.array(sorted(labels), np.int64)
        targets = np.array([classes.index(labels[row]) for row in rows.tolist()], np.int64)
        even = np.ones((len(self.reduced), max(len(classes), 1)))
        if len(classes) < 2:
            return Learned(classes, even, rows[:0], targets[:0], even[:0])
        head = LogisticRegression(C=_STRENGTH, max_iter=_STEPS, tol=1e-3)
        counts = np.bincount(targets)
        judged = np.flatnonzero(counts[targets] > 1)
        out_of_fold = np.zeros((len(judged), len(classes)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="lbfgs failed to converge")
            probabilities = head.fit(self.reduced[rows], targets).predict_proba(self.reduced)
            own, truth = self.reduced[rows[judged]], targets[judged]
            if cross_validate and len(set(truth)) > 1:
                most = _FOLDS if len(truth) < _MANY else _FOLDS_OF_MANY
                folds = min(most, int(counts[counts > 1].min()))
                parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(own, truth)
                present = np.unique(truth)
                out_of_fold[:, present] = cross_val_predict(
                    head, own, truth, cv=parts, method="predict_proba"
                )
            else:
                judged, truth, out_of_fold = judged[:0], truth[:0], out_of_fold[:0]
        return Learned(classes, probabilities, rows[judged], truth, out_of_fold)
