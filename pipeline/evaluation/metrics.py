"""How good predictions are.

labels (N,) + probabilities (N, K) -> numbers. scikit-learn does the counting.
"""

import warnings
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
        accuracy, macro_f1, balanced_accuracy, log_loss, brier (half the squared distance
        to the one-hot label: 0 to 1), calibration_error, roc_auc (one against the rest,
        mean over classes) and, with more than 5 classes, top_5_accuracy.
    """
    from sklearn import metrics as sk

    classes = np.arange(probabilities.shape[1])
    exact = normalized(probabilities)
    predicted = probabilities.argmax(axis=1)
    found = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "macro_f1": _macro_f1(labels, predicted, classes),
        "balanced_accuracy": _balanced(labels, predicted),
        "log_loss": sk.log_loss(labels, exact, labels=classes),
        "brier": sk.brier_score_loss(labels, exact, labels=classes, scale_by_half=True),
        "calibration_error": calibration_error(labels, exact),
        "roc_auc": _roc_auc(labels, exact),
    }
    if len(classes) > TOP:
        found[f"top_{TOP}_accuracy"] = sk.top_k_accuracy_score(labels, exact, k=TOP, labels=classes)
    return {name: float(value) for name, value in found.items()}


def normalized(probabilities: NDArray[np.float32]) -> Floats:
    """Probabilities that add up to 1 in float64: (N, K)."""
    exact = probabilities.astype(np.float64)
    rows: Floats = exact / exact.sum(axis=1, keepdims=True)
    return rows


def calibration_error(labels: Labels, probabilities: Floats) -> float:
    """Expected calibration error of the predicted class' probability.

    Mean distance of confidence and accuracy over bins of equal width, weighted by their
    pictures. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    counts, confidences, hits = reliability(labels, probabilities)
    return float(np.abs(confidences - hits).sum() / counts.sum())


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


def _macro_f1(labels: Labels, predicted: Labels, classes: Labels) -> float:
    from sklearn import metrics as sk

    score = sk.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)
    return float(score)


def _balanced(labels: Labels, predicted: Labels) -> float:
    from sklearn import metrics as sk

    with warnings.catch_warnings():
        # A class that is predicted where a part of the pictures has none of it.
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        return float(sk.balanced_accuracy_score(labels, predicted))


def _roc_auc(labels: Labels, probabilities: Floats) -> float:
    """Mean over the classes that some pictures have and some have not."""
    from sklearn import metrics as sk

    present = [k for k in range(probabilities.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    areas = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in present]
    return float(np.mean(areas)) if areas else float("nan")


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
