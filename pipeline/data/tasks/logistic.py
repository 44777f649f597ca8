"""Logistic regression on features: a fast baseline and a good start for fine-tuning.

features (N, D) + labels (N,) -> weights (D, K) and biases (K,). The strength of regularization is
chosen by cross-validation. Source: Kornblith et al. 2019, Do Better ImageNet Models Transfer
Better?, appendix A.3. The minimum is that of scikit-learn's LogisticRegression, in a fraction of
its steps: the solver works along the principal directions of the features and knows how steep the
loss is along each.
"""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.data.tasks import Fit, Floats
from pipeline.storage import progress

STRENGTHS = np.logspace(-5, 2, 8)
"""Candidates for scikit-learn's C; larger values regularize less."""

_MIDDLE = 3
"""Position where the search begins."""
_FOLDS = 3
_SUSPECT_FOLDS = 5
_DIRECTIONS = 256
"""Principal components for finding mislabelled images: enough, in seconds instead of minutes."""
_SUSPECT_STRENGTH = 1e-2
"""Their C: with 5 % of the labels changed, it found most of them with the fewest others on ants and
bees and on hand signs; weaker regularization also learns the wrong labels."""
_ITERATIONS = 300
_ROUGHLY = 1e-3
"""Tolerance during the search: enough to compare values of C."""
_PLATEAU = 0.01
"""Difference of losses that counts as none: rough fits cannot tell."""
TOLERANCE = 1e-5
"""Tolerance of the final fit: largest gradient along a scaled direction."""
_STEPS = 3000


@dataclass(frozen=True)
class Fitted:
    """A logistic regression.

    Attributes:
        weights: (D, K).
        biases: (K,).
        strength: The chosen C.
        losses: (F,) cross-validated log loss per fold at that C; empty if a class has only one
            image.
    """

    weights: Floats
    biases: Floats
    strength: float
    losses: Floats


def fit(features: NDArray[np.float32], labels: NDArray[np.int64], how: Fit) -> Fitted:
    """Fit (N, D) features, with the C that is best in cross-validation; every class occurs."""
    with threadpool_limits(how.threads):
        return _fitted(_Problem(features, labels, how.width, how.balanced), how.seed)


def _fitted(problem: _Problem, seed: int) -> Fitted:
    strength, losses, start = _chosen(problem, seed)
    coefficients = problem.fit(strength, TOLERANCE, start=start)
    weights = problem.directions @ coefficients[:-1] / problem.scale[:, None]
    biases = coefficients[-1] - problem.mean @ weights
    if weights.shape[1] == 1:
        weights = np.hstack([np.zeros_like(weights), weights])
        biases = np.append(0.0, biases)
    return Fitted(weights, biases, strength, losses)


def one_vs_rest(
    features: NDArray[np.float32], targets: NDArray[np.int64], how: Fit
) -> list[Fitted]:
    """Fit each of K labels, (N, K) of 0 and 1, against the rest."""
    with threadpool_limits(how.threads):
        problem = _Problem(features, targets[:, 0], 2, how.balanced)
        return [
            _fitted(problem.relabelled(labels, how.balanced), how.seed)
            for labels in progress.bar(targets.T, "labels", unit="label")
        ]


def out_of_fold(features: NDArray[np.float32], labels: NDArray[np.int64], how: Fit) -> Floats:
    """Predict each row with a regression fitted to the other folds; returns (N, K).

    Labels are (N,) class indices, of at least two images per class; or (N, K) of 0 and 1, with a
    regression for each column.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(how.threads), warnings.catch_warnings():
        # A class may have fewer images than folds: some folds do without. And where features are
        # too poor for the solver to converge, a converged answer would not be better.
        warnings.filterwarnings("ignore", message="The least populated class")
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        standard = StandardScaler().fit_transform(features.astype(np.float64))
        most = min(_DIRECTIONS, *features.shape)
        reduced = PCA(most, svd_solver="randomized", random_state=how.seed).fit_transform(standard)
        reduced /= max(float(np.sqrt((reduced**2).mean())), 1e-12)
        columns = labels.T if labels.ndim > 1 else labels[None]
        total = _SUSPECT_FOLDS * len(columns)
        bar = progress.bar(desc="out of fold", total=total, unit="it")

        def folded(truth: NDArray[np.int64]) -> Floats:
            predicted = np.zeros((len(truth), truth.max() + 1))
            parts = StratifiedKFold(_SUSPECT_FOLDS, shuffle=True, random_state=how.seed)
            for others, own in parts.split(reduced, truth):
                model = LogisticRegression(C=_SUSPECT_STRENGTH, max_iter=_ITERATIONS)
                model.fit(reduced[others], truth[others])
                predicted[np.ix_(own, model.classes_)] = model.predict_proba(reduced[own])
                bar.update()
            return predicted

        with bar:
            if labels.ndim == 1:
                return folded(labels)
            return np.stack([folded(column)[:, 1] for column in columns], axis=1)


class _Problem:
    """Features to which a regression is fitted, standardized and along principal directions.

    A penalized regression is the same in every orthogonal basis. As in scikit-learn, two classes
    share one weight per feature: the first class's log odds are zero.

    Attributes:
        rows: (N, R) standardized features along the directions.
        mean: (D,).
        scale: (D,) standard deviations; 1 where a feature is constant.
        directions: (D, R) orthonormal columns.
    """

    def __init__(
        self, features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, balanced: bool
    ) -> None:
        exact = features.astype(np.float64)
        self.mean, deviation = exact.mean(axis=0), exact.std(axis=0)
        constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(self.mean)
        self.scale = np.where(constant, 1.0, deviation)
        exact = np.where(constant, 0.0, (exact - self.mean) / self.scale)
        if len(exact) < exact.shape[1]:  # the weights lie in the span of the images
            span, along = np.linalg.qr(exact.T)
            exact = along.T
        else:
            span = np.eye(exact.shape[1])
        self._variances, rotation = np.linalg.eigh(exact.T @ exact / len(exact))
        self.rows, self.directions = exact @ rotation, span @ rotation
        self._label(labels, classes, balanced)

    def relabelled(self, labels: NDArray[np.int64], balanced: bool) -> _Problem:
        """Return the same features with labels of two classes."""
        other = copy(self)
        other._label(labels, 2, balanced)
        return other

    def _label(self, labels: NDArray[np.int64], classes: int, balanced: bool) -> None:
        self.labels, self._columns = labels, classes if classes > 2 else 1
        counts = np.bincount(labels, minlength=classes)
        self._rarest = int(counts[counts > 0].min())
        self._weights = 1 / counts[labels] if balanced else np.ones(len(labels))
        self._weights *= len(labels) / self._weights.sum()

    def folds(self, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return pairs of rows to fit to and rows left out; none if a class has one image."""
        from sklearn.model_selection import StratifiedKFold

        folds = min(_FOLDS, self._rarest)
        if folds < 2:
            return []
        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return list(split.split(self.labels, self.labels))

    def fit(
        self,
        strength: float,
        tolerance: float,
        rows: NDArray[np.int64] | slice = slice(None),
        start: Floats | None = None,
    ) -> Floats:
        """Return the (R + 1, K) weights and biases, (R + 1, 1) for two classes.

        `strength` is scikit-learn's C, `tolerance` the largest gradient at the end.
        """
        from scipy.optimize import minimize
        from scipy.special import log_softmax

        features, labels = self.rows[rows], self.labels[rows]
        weights = self._weights[rows, None] / self._weights[rows].sum()
        penalty = 1 / (strength * self._weights[rows].sum())
        classes = max(self._columns, 2)
        truth = weights * (labels[:, None] == np.arange(classes))
        # The loss is about as steep as at the start, where all classes are equally likely.
        steepness = (classes - 1) / classes**2
        variances = np.append(self._variances.clip(0), 1)
        penalties = np.append(np.full(len(variances) - 1, penalty), 0)
        scale = 1 / np.sqrt(penalties + steepness * variances)[:, None]

        def loss(scaled: Floats) -> tuple[float, Floats]:
            coefficients = scale * scaled.reshape(len(scale), -1)
            logs = log_softmax(_log_odds(features, coefficients), axis=1)
            errors = (weights * np.exp(logs) - truth)[:, -self._columns :]
            slopes = np.vstack([features.T @ errors, errors.sum(axis=0)])
            slopes += penalties[:, None] * coefficients
            value = penalty / 2 * (coefficients[:-1] ** 2).sum() - (truth * logs).sum()
            return float(value), (scale * slopes).ravel()

        first = np.zeros((len(scale), self._columns)) if start is None else start / scale
        limits = {"gtol": tolerance, "ftol": 0.0, "maxiter": _STEPS, "maxfun": 2 * _STEPS}
        result = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=limits)
        coefficients: Floats = scale * result.x.reshape(len(scale), -1)
        return coefficients


def _log_odds(features: Floats, coefficients: Floats) -> Floats:
    """Return (M, K) log odds, up to a constant per row."""
    odds: Floats = features @ coefficients[:-1] + coefficients[-1]
    return odds if odds.shape[1] > 1 else np.hstack([np.zeros_like(odds), odds])


def _chosen(problem: _Problem, seed: int) -> tuple[float, Floats, Floats | None]:
    """Choose the best C.

    The loss falls and then rises with C: from the middle, the search follows it downhill and stops
    behind the lowest, as the largest values take longest. Each fit starts from the last one.

    Returns:
        C, its log loss on each fold, and a start for fitting to all rows.
    """
    from scipy.special import log_softmax

    parts = problem.folds(seed)
    if not parts:
        # Strong regularization: there is next to nothing to learn from.
        return 1e-2, np.zeros(0), None
    bar = progress.bar(desc="logistic regression", unit="fit")

    def tried(place: int, starts: list[Floats | None]) -> tuple[Floats, list[Floats]]:
        losses, fits = [], []
        for (others, own), start in zip(parts, starts, strict=True):
            fits.append(problem.fit(STRENGTHS[place], _ROUGHLY, others, start))
            logs = log_softmax(_log_odds(problem.rows[own], fits[-1]), axis=1)
            losses.append(-logs[np.arange(len(own)), problem.labels[own]].mean())
            bar.update()
        return np.array(losses), fits

    with bar:
        best = _MIDDLE
        lowest, fits = tried(best, [None] * len(parts))
        for step in (1, -1):
            start = best
            while 0 <= best + step < len(STRENGTHS):
                losses, following = tried(best + step, list(fits))
                if losses.mean() > (1 - _PLATEAU) * lowest.mean():
                    break
                best, lowest, fits = best + step, losses, following
            if best != start:
                break
    return float(STRENGTHS[best]), lowest, np.mean(fits, axis=0)
