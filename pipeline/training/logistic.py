"""Logistic regression on features: the honest floor, in seconds, and a good start of fine-tuning.

features (N, D) + labels (N,) -> weights (D, K) and biases (K,). How strongly the weights are held
down is chosen by cross-validation. Source: Kornblith et al. 2019, Do Better ImageNet Models
Transfer Better?, appendix A.3.
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
"""The values of scikit-learn's C that are tried; the larger, the freer the weights."""

_FOLDS = 3
_JUDGED_FOLDS = 5
_DIRECTIONS = 256
"""Of the features that tell mislabelled images: enough, and seconds instead of minutes."""
_HELD = 1e-2
"""Their C: on ants and bees and on hand signs with 5 % of the labels changed it found most of these
with the fewest others; a freer regression learns the wrong labels, too."""
_ITERATIONS = 300
_ROUGHLY = 1e-3
"""Where the search stops to refine: enough to tell one C from another."""
TOLERANCE = 1e-4
"""Where the fit does."""


@dataclass(frozen=True)
class Fitted:
    """A logistic regression.

    Attributes:
        weights: (D, K).
        biases: (K,).
        strength: The C that was chosen.
        losses: (F,) cross-validated log loss by fold at that C; empty where a class has a
            single image, which no fold can spare.
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
    """Fit to all features, at the C that does best on images left out.

    Args:
        features: (N, D).
        labels: (N,) class indices; every class occurs.
        classes: K.
        balanced: Whether each class counts the same, whatever its size.
        seed: Of the folds.
        threads: Of the linear algebra; its last bits depend on them.
    """
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features.astype(np.float64))
    standard = scaler.transform(features.astype(np.float64))
    with threadpool_limits(threads):
        strength, losses = _chosen(standard, labels, balanced, seed)
        model = _regression(strength, balanced).fit(standard, labels)
    weights, biases = model.coef_.T, model.intercept_
    if classes == 2:  # scikit-learn keeps the second class's alone; the first one's are zero
        weights = np.hstack([np.zeros_like(weights), weights])
        biases = np.append(0.0, biases)
    # The standardization becomes part of the weights.
    weights = weights / scaler.scale_[:, None]
    return Fitted(weights, biases - scaler.mean_ @ weights, strength, losses)


def left_out(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, threads: int
) -> Floats:
    """(F,) accuracy by fold of a regression that was fitted to the other folds.

    Args:
        features: (N, D).
        labels: (N,) class indices; at least two images of each class.
        seed: Of the folds.
        threads: Of the linear algebra.
    """
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(threads):
        exact = features.astype(np.float64)
        strength, _ = _chosen(StandardScaler().fit_transform(exact), labels, False, seed)
        judged = make_pipeline(StandardScaler(), _regression(strength, False))
        accuracies: Floats = cross_val_score(judged, exact, labels, cv=_folds(labels, seed))
    return accuracies


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.int64], *, seed: int, threads: int
) -> Floats:
    """(N, K): of each row what a regression says that was fitted to the other folds.

    Args:
        features: (N, D).
        labels: (N,) class indices; at least two images of each class.
        seed: Of the folds.
        threads: Of the linear algebra.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(threads), warnings.catch_warnings():
        # A class may have fewer images than there are folds: some folds do without. And where
        # features are so poor that the solver does not come to its end, nor would an answer.
        warnings.filterwarnings("ignore", message="The least populated class")
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        standard = StandardScaler().fit_transform(features.astype(np.float64))
        most = min(_DIRECTIONS, *features.shape)
        reduced = PCA(most, svd_solver="randomized", random_state=seed).fit_transform(standard)
        reduced /= max(float(np.sqrt((reduced**2).mean())), 1e-12)
        found = np.zeros((len(labels), labels.max() + 1))
        parts = StratifiedKFold(_JUDGED_FOLDS, shuffle=True, random_state=seed)
        for others, own in _told(parts.split(reduced, labels), _JUDGED_FOLDS, "out of fold"):
            model = LogisticRegression(C=_HELD, max_iter=_ITERATIONS)
            model.fit(reduced[others], labels[others])
            found[np.ix_(own, model.classes_)] = model.predict_proba(reduced[own])
    return found


def _chosen(
    features: Floats, labels: NDArray[np.int64], balanced: bool, seed: int
) -> tuple[float, Floats]:
    """The best C, and its log loss on each fold."""
    from sklearn.linear_model import LogisticRegressionCV

    if np.bincount(labels).min() < 2:
        return 1e-2, np.zeros(0)  # a strong hold: there is next to nothing to learn from
    with warnings.catch_warnings():
        # A C at which the solver does not come to its end in time is no worse a candidate.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        parts = _folds(labels, seed)
        told = _told(parts.split(features, labels), parts.n_splits, "logistic regression")
        scores = [
            LogisticRegressionCV(
                Cs=STRENGTHS,
                l1_ratios=(0.0,),
                cv=[part],
                scoring="neg_log_loss",
                max_iter=_ITERATIONS,
                tol=_ROUGHLY,
                class_weight="balanced" if balanced else None,
                refit=False,
                use_legacy_attributes=False,
            )
            .fit(features, labels)
            .scores_
            for part in told
        ]
    losses = -np.asarray(scores).reshape(-1, len(STRENGTHS))
    best = int(losses.mean(axis=0).argmin())
    return float(STRENGTHS[best]), losses[:, best]


def _told(parts: Iterator[Any], count: int, desc: str) -> Iterator[Any]:
    """Folds one by one, with a bar: a regression on many features takes its time."""
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
