"""How good predictions are.

facts of N images -> numbers, also of many draws of the images at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.evaluation.facts import BINS, TOP, Facts, Floats, Labels

ROC_AUC = "roc_auc"

_VALUES = 8_000_000


@dataclass(frozen=True)
class Sums:
    """What metrics are made of, for R draws of N images of K classes.

    Attributes:
        known: Facts of the images.
        counts: (R, N) how often each image counts.
        total: (R,) images of a draw.
        hits: (K, R) right ones by class.
        support: (K, R) images by class.
        claimed: (K, R) images by predicted class.
        gaps: (BINS, R) sums of confidence minus accuracy.
    """

    known: Facts
    counts: Floats
    total: Floats
    hits: Floats
    support: Floats
    claimed: Floats
    gaps: Floats


@dataclass(frozen=True)
class Metric:
    """A metric: (R,) of R draws.

    Attributes:
        of: Computes it.
        lower_is_better: Whether small values are good.
        min_classes: It says nothing with fewer classes.
    """

    of: Callable[[Sums], Floats]
    lower_is_better: bool = False
    min_classes: int = 0


def _balanced_accuracy(sums: Sums) -> Floats:
    with np.errstate(invalid="ignore"):
        recall = sums.hits / sums.support
    return np.asarray(np.nanmean(recall, axis=0))  # a class that a draw lacks does not count


METRICS = {
    "accuracy": Metric(lambda s: s.hits.sum(axis=0) / s.total),
    "macro_f1": Metric(lambda s: (2 * s.hits / np.maximum(s.support + s.claimed, 1)).mean(axis=0)),
    "balanced_accuracy": Metric(_balanced_accuracy),
    "log_loss": Metric(lambda s: s.counts @ s.known.loss / s.total, lower_is_better=True),
    # Half the squared distance to the one-hot label: 0 to 1.
    "brier": Metric(lambda s: s.counts @ s.known.brier / s.total, lower_is_better=True),
    # Guo et al. 2017: mean distance of confidence and accuracy over bins of equal width.
    "calibration_error": Metric(
        lambda s: np.abs(s.gaps).sum(axis=0) / s.total, lower_is_better=True
    ),
    f"top_{TOP}_accuracy": Metric(
        lambda s: s.counts @ s.known.in_top.astype(np.float64) / s.total, min_classes=TOP + 1
    ),
}
"""Every metric but ROC-AUC, which needs the probabilities themselves."""
NAMES = (*METRICS, ROC_AUC)
LOWER_IS_BETTER = tuple(name for name, metric in METRICS.items() if metric.lower_is_better)


def of(known: Facts, desc: str = "") -> dict[str, float]:
    """Every metric; without ROC-AUC where the probabilities are not there."""
    once = np.ones((1, len(known.labels)))
    values = weighted(known, once)
    if known.probabilities is not None:
        values[ROC_AUC] = roc_auc(known, once, desc)
    return {name: float(value[0]) for name, value in values.items()}


def weighted(known: Facts, counts: Floats) -> dict[str, Floats]:
    """Every metric but ROC-AUC, where image n counts `counts[r, n]` times.

    Args:
        known: Of N images.
        counts: (R, N).

    Returns:
        Metric -> (R,). What a draw does not define, for lack of a class, leaves it out.
    """
    turned = np.ascontiguousarray(counts.T)
    right = known.right.astype(np.float64)
    sums = Sums(
        known,
        counts,
        counts.sum(axis=1),
        _sums(known.labels, known.classes, right) @ turned,
        _sums(known.labels, known.classes) @ turned,
        _sums(known.predicted, known.classes) @ turned,
        _sums(known.bins, BINS, known.confidence - right) @ turned,
    )
    return {
        name: metric.of(sums)
        for name, metric in METRICS.items()
        if known.classes >= metric.min_classes
    }


def _sums(groups: Labels, count: int, values: Floats | None = None) -> Any:
    """(count, N) sparse, to multiply with: sums by group, each image weighted by its value."""
    from scipy import sparse

    images = len(groups)
    given = np.ones(images) if values is None else values
    return sparse.csr_matrix((given, (groups, np.arange(images))), shape=(count, images))


def roc_auc(known: Facts, counts: Floats, desc: str = "") -> Floats:
    """(R,): the share of pairs of an image of a class and one of the rest in right order.

    Args:
        known: Of N images, with their probabilities.
        counts: (R, N) how often each image counts.
        desc: Name of the progress bar; no bar if empty.
    """
    assert known.probabilities is not None
    # An image a row, so that sums run along memory; its halves of numbers of images are
    # exact in float32, which takes half the time.
    rows = np.ascontiguousarray(counts.T, dtype=np.float32)
    total, areas = counts.sum(axis=1), []
    step = max(1, _VALUES // max(len(known.labels), 1))
    with tqdm(
        total=known.classes,
        desc=desc,
        unit="class",
        delay=1,
        leave=False,
        disable=None if desc else True,
    ) as bar:
        for first in range(0, known.classes, step):
            part = known.probabilities[:, first : first + step].astype(np.float64)
            part /= known.totals[:, None]
            scores = np.ascontiguousarray(part.T)
            del part
            for place, column in enumerate(scores, first):
                order = np.argsort(column, kind="stable")
                areas.append(_area(column[order], known.labels[order] == place, rows[order], total))
                bar.update()
            del scores, column  # or the next ones would lie beside them in memory
    mean: Floats = np.nanmean(np.stack(areas), axis=0)
    return mean


def _area(
    ranked: Floats, positive: NDArray[np.bool_], rest: NDArray[np.float32], total: Floats
) -> Floats:
    """(R,) of one class, given its scores in ascending order and what belongs to them."""
    drawn = rest[positive]
    rest[positive] = 0
    sums = np.cumsum(np.concatenate([np.zeros_like(rest[:1]), rest]), axis=0)
    below = sums[np.searchsorted(ranked, ranked[positive], "left")]
    not_above = sums[np.searchsorted(ranked, ranked[positive], "right")]
    # A tie is half in order. The products may need more digits than float32 has.
    ordered = drawn.astype(np.float64) * ((below + not_above) / 2)
    support = drawn.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        area: Floats = ordered.sum(axis=0, dtype=np.float64) / (support * (total - support))
    return area


def reliability(known: Facts) -> tuple[Floats, Floats, Floats]:
    """A bin each: images, sum of their confidences, how many of them are right."""
    counted = (None, known.confidence, known.right)
    images, confidences, hits = (
        np.bincount(known.bins, weights=weights, minlength=BINS).astype(np.float64)
        for weights in counted
    )
    return images, confidences, hits


def per_class(labels: Labels, predicted: Labels, classes: list[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support of each class.

    Args:
        labels: (N,) class indices.
        predicted: (N,) likewise.
        classes: K names.
    """
    from sklearn import metrics as sk

    scores: Any = sk.precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    return {
        label: {name: float(score[place]) for name, score in zip(names, scores, strict=True)}
        for place, label in enumerate(classes)
    }


def confusion(labels: Labels, predicted: Labels, shown: Labels) -> Labels:
    """(k, k) counts among some classes: true class by predicted class.

    Args:
        labels: (N,) class indices.
        predicted: (N,) likewise.
        shown: (k,) the classes, ascending.
    """
    from sklearn import metrics as sk

    both = np.isin(labels, shown) & np.isin(predicted, shown)
    if not both.any():
        return np.zeros((len(shown), len(shown)), dtype=np.int64)
    counts: Labels = sk.confusion_matrix(labels[both], predicted[both], labels=shown)
    return counts
