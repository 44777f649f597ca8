"""How good predictions are.

labels (N,) + probabilities (N, K) -> numbers. scikit-learn does the counting.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk


def summary(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, float]:
    """Accuracy, macro-F1 and log loss.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).
    """
    predicted = probabilities.argmax(axis=1)
    classes = np.arange(probabilities.shape[1])
    exact = probabilities.astype(np.float64)
    return {
        "accuracy": float(sk.accuracy_score(labels, predicted)),
        "macro_f1": float(
            sk.f1_score(labels, predicted, labels=classes, average="macro", zero_division=0)
        ),
        "log_loss": float(
            sk.log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=classes)
        ),
    }


def per_class(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: list[str]
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each class."""
    scores: Any = sk.precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=np.arange(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: float(score[place]) for name, score in zip(names, scores, strict=True)}
        for place, label in enumerate(classes)
    }


def confusion(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """(K, K) counts: true class by predicted class."""
    classes = np.arange(probabilities.shape[1])
    counts: NDArray[np.int64] = sk.confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=classes
    )
    return counts
