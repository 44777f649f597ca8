"""How good predictions are.

labels (N,) + probabilities (N, K) -> numbers, also of many draws of the pictures at once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

TOP = 5
"""k of top-k accuracy, which is told where there are more classes than that."""

BINS = 15
"""Bins of the expected calibration error, equally wide in confidence."""

LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error")


def summary(labels: Labels, probabilities: NDArray[np.float32]) -> dict[str, float]:
    """How right, how sure, and how rightly sure.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).

    Returns:
        accuracy, macro_f1, balanced_accuracy (mean recall of the classes that occur), log_loss,
        brier (half the squared distance to the one-hot label: 0 to 1), calibration_error (Guo
        et al. 2017: mean distance of confidence and accuracy over bins of equal width), roc_auc
        (one against the rest, mean over classes) and, with more than 5 classes, top_5_accuracy.
    """
    every = weighted(labels, probabilities, np.ones((1, len(labels))))
    return {name: float(values[0]) for name, values in every.items()}


def weighted(
    labels: Labels, probabilities: NDArray[np.float32], counts: Floats
) -> dict[str, Floats]:
    """The metrics of `summary` where picture n counts `counts[r, n]` times.

    Args:
        labels: (N,).
        probabilities: (N, K).
        counts: (R, N).

    Returns:
        Metric -> (R,). What a draw does not define, for lack of a class, leaves it out.
    """
    exact, classes = normalized(probabilities), probabilities.shape[1]
    total = counts.sum(axis=1)
    own, predicted = np.eye(classes)[labels], np.eye(classes)[probabilities.argmax(axis=1)]
    of_own = np.clip(exact[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1)
    hits = counts @ (own * predicted)
    support, claimed = counts @ own, counts @ predicted
    in_bin = np.eye(BINS)[bins(exact)]
    gap = exact.max(axis=1) - (own * predicted).sum(axis=1)
    with np.errstate(invalid="ignore"):
        recall = hits / support
    values = {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": (2 * hits / np.maximum(support + claimed, 1)).mean(axis=1),
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "log_loss": counts @ -np.log(of_own) / total,
        "brier": counts @ (0.5 * ((exact - own) ** 2).sum(axis=1)) / total,
        "calibration_error": np.abs(counts @ (in_bin * gap[:, None])).sum(axis=1) / total,
        "roc_auc": _roc_auc(own.astype(bool), exact, counts),
    }
    if classes > TOP:
        ranked = np.argsort(exact, axis=1, kind="mergesort")[:, ::-1][:, :TOP]
        within = (ranked == labels[:, None]).any(axis=1).astype(np.float64)
        values[f"top_{TOP}_accuracy"] = counts @ within / total
    return values


def _roc_auc(own: NDArray[np.bool_], scores: Floats, counts: Floats) -> Floats:
    """(R,): the share of pairs of a picture of a class and one of the rest in right order."""
    # A picture a row, so that sums run along memory; its halves of numbers of pictures are
    # exact in float32, which takes half the time.
    rows = np.ascontiguousarray(counts.T, dtype=np.float32)
    total = counts.sum(axis=1)
    areas = []
    for place in range(own.shape[1]):
        order = np.argsort(scores[:, place], kind="stable")
        ranked, positive = scores[order, place], own[order, place]
        rest = rows[order]
        drawn = rest[positive]
        rest[positive] = 0
        sums = np.cumsum(np.concatenate([np.zeros_like(rest[:1]), rest]), axis=0)
        below = sums[np.searchsorted(ranked, ranked[positive], "left")]
        not_above = sums[np.searchsorted(ranked, ranked[positive], "right")]
        ordered = drawn * ((below + not_above) / 2)  # a tie is half in order
        support = drawn.sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            areas.append(ordered.sum(axis=0, dtype=np.float64) / (support * (total - support)))
    mean: Floats = np.nanmean(np.stack(areas), axis=0)
    return mean


def normalized(probabilities: NDArray[np.float32]) -> Floats:
    """Probabilities that add up to 1 in float64: (N, K)."""
    exact = probabilities.astype(np.float64)
    rows: Floats = exact / exact.sum(axis=1, keepdims=True)
    return rows


def reliability(labels: Labels, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """A bin each: pictures, sum of their confidences, how many of them are right."""
    places = bins(probabilities)
    right = probabilities.argmax(axis=1) == labels
    confidence = probabilities.max(axis=1)
    return (
        np.bincount(places, minlength=BINS).astype(np.float64),
        np.bincount(places, weights=confidence, minlength=BINS).astype(np.float64),
        np.bincount(places, weights=right, minlength=BINS).astype(np.float64),
    )


def bins(probabilities: Floats) -> Labels:
    """(N,) the bin of each picture's confidence."""
    places: Labels = np.minimum((probabilities.max(axis=1) * BINS).astype(np.int64), BINS - 1)
    return places


def per_class(
    labels: Labels, probabilities: NDArray[np.float32], classes: list[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each class."""
    from sklearn import metrics as sk

    scores: Any = sk.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: float(score[place]) for name, score in zip(names, scores, strict=True)}
        for place, label in enumerate(classes)
    }


def confusion(labels: Labels, probabilities: NDArray[np.float32]) -> Labels:
    """(K, K) counts: true class by predicted class."""
    from sklearn import metrics as sk

    classes = np.arange(probabilities.shape[1])
    counts: Labels = sk.confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes)
    return counts
