"""Logistic regression on features: a fast baseline and a good start for fine-tuning.

features (N, D) + labels (N,) -> weights (D, K) and biases (K,). The strength of regularization is
chosen by cross-validation. Source: Kornblith et al. 2019, Do Better ImageNet Models Transfer
Better?, appendix A.3.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

Floats = NDArray[np.float64]

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
TOLERANCE = 1e-4
"""Tolerance of the final fit."""


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


def fit(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    classes: int,
    balanced: bool,
    seed: int,
    threads: int,
) -> Fitted:
    """Fit to all features, with the C that is best in cross-validation.

    Args:
        features: (N, D).
        labels: (N,) class indices; every class occurs.
        classes: K.
        balanced: Weight all classes equally, whatever their size.
        seed: Seed of the folds.
        threads: Threads for linear algebra; the last bits depend on them.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    standard = scaler.transform(features.astype(np.float64))
    with threadpool_limits(threads):
        strength, losses = _chosen(standard, labels, balanced, seed)
        model = _regression(strength, balanced).fit(standard, labels)
    weights, biases = model.coef_.T, model.intercept_
    if classes == 2:  # scikit-learn only returns the second class; the first one's are zero
        weights = np.hstack([np.zeros_like(weights), weights])
        biases = np.append(0.0, biases)
    # Fold the standardization into the weights.
    weights = weights / scaler.scale_[:, None]
    return Fitted(weights, biases - scaler.mean_ @ weights, strength, losses)


def left_out(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, threads: int
) -> Floats:
    """Cross-validate the accuracy of a regression; returns (F,) accuracies by fold.

    Args:
        features: (N, D).
        labels: (N,) class indices; at least two images per class.
        seed: Seed of the folds.
        threads: Threads for linear algebra.
    """
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(threads):
        exact = features.astype(np.float64)
        strength, _ = _chosen(StandardScaler().fit_transform(exact), labels, False, seed)
        model = make_pipeline(StandardScaler(), _regression(strength, False))
        accuracies: Floats = cross_val_score(model, exact, labels, cv=_folds(labels, seed))
    return accuracies


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, threads: int
) -> Floats:
    """Predict each row with a regression fitted to the other folds; returns (N, K).

    Args:
        features: (N, D).
        labels: (N,) class indices; at least two images per class.
        seed: Seed of the folds.
        threads: Threads for linear algebra.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(threads), warnings.catch_warnings():
        # A class may have fewer images than folds: some folds do without. And where features are
        # too poor for the solver to converge, a converged answer would not be better.
        warnings.filterwarnings("ignore", message="The least populated class")
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        standard = StandardScaler().fit_transform(features.astype(np.float64))
        most = min(_DIRECTIONS, *features.shape)
        reduced = PCA(most, svd_solver="randomized", random_state=seed).fit_transform(standard)
        reduced /= max(float(np.sqrt((reduced**2).mean())), 1e-12)
        predicted = np.zeros((len(labels), labels.max() + 1))
        parts = StratifiedKFold(_SUSPECT_FOLDS, shuffle=True, random_state=seed)
        for others, own in _with_bar(parts.split(reduced, labels), _SUSPECT_FOLDS, "out of fold"):
            model = LogisticRegression(C=_SUSPECT_STRENGTH, max_iter=_ITERATIONS)
            model.fit(reduced[others], labels[others])
            predicted[np.ix_(own, model.classes_)] = model.predict_proba(reduced[own])
    return predicted


def _chosen(
    features: Floats, labels: NDArray[np.int64], balanced: bool, seed: int
) -> tuple[float, Floats]:
    """Choose the best C; also returns its log loss on each fold.

    The loss falls and then rises with C: from the middle, the search follows it downhill and stops
    behind the lowest, as the largest values take longest. Each fit starts from the last one.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    if np.bincount(labels).min() < 2:
        return 1e-2, np.zeros(0)  # strong regularization: there is next to nothing to learn from
    parts = list(_folds(labels, seed).split(features, labels))
    classes = np.unique(labels)
    models = [
        LogisticRegression(
            max_iter=_ITERATIONS,
            tol=_ROUGHLY,
            class_weight="balanced" if balanced else None,
            warm_start=True,
        )
        for _ in parts
    ]
    bar = tqdm(desc="logistic regression", unit="fit", delay=1, leave=False, disable=None)

    def losses(place: int) -> Floats:
        losses = []
        for model, (others, own) in zip(models, parts, strict=True):
            model.set_params(C=STRENGTHS[place]).fit(features[others], labels[others])
            predicted = model.predict_proba(features[own])
            losses.append(log_loss(labels[own], predicted, labels=classes))
            bar.update()
        return np.array(losses)

    with warnings.catch_warnings(), bar:
        # A C at which the solver does not converge in time is not a worse candidate.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        best, lowest = _MIDDLE, losses(_MIDDLE)
        for step in (1, -1):
            start = best
            while 0 <= best + step < len(STRENGTHS):
                following = losses(best + step)
                if following.mean() > (1 - _PLATEAU) * lowest.mean():
                    break
                best, lowest = best + step, following
            if best != start:
                break
    return float(STRENGTHS[best]), lowest


def _with_bar(parts: Iterator[Any], count: int, desc: str) -> Iterator[Any]:
    """Show a bar for the folds: a regression on many features takes a while."""
    yield from tqdm(parts, desc, count, unit="fold", delay=1, leave=False, disable=None)


def _folds(labels: NDArray[np.int64], seed: int) -> Any:
    from sklearn.model_selection import StratifiedKFold

    folds = int(min(_FOLDS, np.bincount(labels).min()))
    return StratifiedKFold(folds, shuffle=True, random_state=seed)


def _regression(strength: float, balanced: bool) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=strength,
        max_iter=10 * _ITERATIONS,
        tol=TOLERANCE,
        class_weight="balanced" if balanced else None,
    )
