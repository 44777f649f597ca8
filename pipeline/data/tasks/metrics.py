"""Metrics of predictions.

facts of N images -> numbers, also for many bootstrap draws at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.tasks.facts import BINS, TOP, Facts, Floats, Labels

ROC_AUC = "roc_auc"

_VALUES = 8_000_000
_BIN_IMAGES, _MAX_BINS = 20, 12
"""Images per point of a reliability diagram, and its points."""


@dataclass(frozen=True)
class Sums:
    """Sums that metrics are computed from, for R draws of N images with K classes.

    Attributes:
        facts: Facts of the images.
        counts: (R, N) how often each draw contains each image.
        total: (R,) number of images in a draw.
        hits: (K, R) correct predictions per class.
        support: (K, R) images per class.
        claimed: (K, R) images per predicted class.
        gaps: (BINS, R) sums of confidence minus accuracy.
    """

    facts: Facts
    counts: Floats
    total: Floats
    hits: Floats
    support: Floats
    claimed: Floats
    gaps: Floats


@dataclass(frozen=True)
class Metric:
    """A metric for R draws: (R,).

    Attributes:
        of: Computes it.
        min_classes: Number of classes below which it is meaningless.
    """

    of: Callable[[Sums], Floats]
    min_classes: int = 0


def _balanced_accuracy(sums: Sums) -> Floats:
    with np.errstate(invalid="ignore"):
        recall = sums.hits / sums.support
    return np.asarray(np.nanmean(recall, axis=0))  # a class missing from a draw does not count


METRICS = {
    "accuracy": Metric(lambda s: s.hits.sum(axis=0) / s.total),
    "macro_f1": Metric(lambda s: (2 * s.hits / np.maximum(s.support + s.claimed, 1)).mean(axis=0)),
    "balanced_accuracy": Metric(_balanced_accuracy),
    "log_loss": Metric(lambda s: s.counts @ s.facts.loss / s.total),
    # Half the squared distance to the one-hot label: 0 to 1.
    "brier": Metric(lambda s: s.counts @ s.facts.brier / s.total),
    # Guo et al. 2017: mean distance of confidence and accuracy over bins of equal width.
    "calibration_error": Metric(lambda s: np.abs(s.gaps).sum(axis=0) / s.total),
    f"top_{TOP}_accuracy": Metric(
        lambda s: s.counts @ s.facts.in_top.astype(np.float64) / s.total, min_classes=TOP + 1
    ),
}
"""All metrics except ROC-AUC, which needs the probabilities themselves."""
NAMES = (*METRICS, ROC_AUC)


def of(facts: Facts, desc: str = "") -> dict[str, float]:
    """Compute all metrics; without ROC-AUC if there are no probabilities."""
    once = np.ones((1, len(facts.labels)))
    values = weighted(facts, once)
    if facts.probabilities is not None:
        values[ROC_AUC] = roc_auc(facts, once, desc)
    return {name: float(value[0]) for name, value in values.items()}


def weighted(facts: Facts, counts: Floats) -> dict[str, Floats]:
    """Compute all metrics except ROC-AUC, counting image n `counts[r, n]` times.

    Args:
        facts: Facts of N images.
        counts: (R, N).

    Returns:
        Metric -> (R,). Classes missing from a draw are left out of it.
    """
    turned = np.ascontiguousarray(counts.T)
    right = facts.right.astype(np.float64)
    sums = Sums(
        facts,
        counts,
        counts.sum(axis=1),
        _sums(facts.labels, facts.classes, right) @ turned,
        _sums(facts.labels, facts.classes) @ turned,
        _sums(facts.predicted, facts.classes) @ turned,
        _sums(facts.bins, BINS, facts.confidence - right) @ turned,
    )
    return {
        name: metric.of(sums)
        for name, metric in METRICS.items()
        if facts.classes >= metric.min_classes
    }


def _sums(groups: Labels, count: int, values: Floats | None = None) -> Any:
    """Build a sparse (count, N) matrix that sums values by group."""
    from scipy import sparse

    images = len(groups)
    weights = np.ones(images) if values is None else values
    return sparse.csr_matrix((weights, (groups, np.arange(images))), shape=(count, images))


def roc_auc(facts: Facts, counts: Floats, desc: str = "") -> Floats:
    """Compute the one-vs-rest ROC-AUC, averaged over classes: (R,).

    Args:
        facts: Facts of N images, with their probabilities.
        counts: (R, N) how often each image counts.
        desc: Name of the progress bar; no bar if empty.
    """
    assert facts.probabilities is not None
    # One image per row, so that sums run along memory; multiples of one half are exact in
    # float32, which takes half the time.
    rows = np.ascontiguousarray(counts.T, dtype=np.float32)
    total, areas = counts.sum(axis=1), []
    step = max(1, _VALUES // max(len(facts.labels), 1))
    with tqdm(
        total=facts.classes,
        desc=desc,
        unit="class",
        delay=1,
        leave=False,
        disable=None if desc else True,
    ) as bar:
        for first in range(0, facts.classes, step):
            part = facts.probabilities[:, first : first + step].astype(np.float64)
            part /= facts.totals[:, None]
            scores = np.ascontiguousarray(part.T)
            del part
            for place, column in enumerate(scores, first):
                order = np.argsort(column, kind="stable")
                areas.append(_area(column[order], facts.labels[order] == place, rows[order], total))
                bar.update()
            del scores, column  # or the next ones would be in memory at the same time
    every = np.stack(areas)
    none = np.isnan(every).all(axis=0)  # all images of a draw are of one class
    mean: Floats = np.where(none, np.nan, np.nanmean(np.where(none, 0, every), axis=0))
    return mean


def _area(
    ranked: Floats, positive: NDArray[np.bool_], rest: NDArray[np.float32], total: Floats
) -> Floats:
    """Compute the area for one class, (R,), from its ascending scores and their counts."""
    drawn = rest[positive]
    rest[positive] = 0
    sums = np.cumsum(np.concatenate([np.zeros_like(rest[:1]), rest]), axis=0)
    below = sums[np.searchsorted(ranked, ranked[positive], "left")]
    not_above = sums[np.searchsorted(ranked, ranked[positive], "right")]
    # Ties count one half. The products may need more digits than float32 has.
    ordered = drawn.astype(np.float64) * ((below + not_above) / 2)
    support = drawn.sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        area: Floats = ordered.sum(axis=0, dtype=np.float64) / (support * (total - support))
    return area


def reliability(facts: Facts) -> tuple[Floats, Floats, Floats]:
    """Compute number of images, mean confidence and accuracy of bins with equally many images."""
    return binned(facts.confidence, facts.right)


def binned(chances: Floats, right: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Compute count, mean chance and share of right ones of bins with equal counts."""
    order = np.argsort(chances, kind="stable")
    bins = np.array_split(order, np.clip(len(order) // _BIN_IMAGES, 1, _MAX_BINS))
    columns = (
        [len(rows) for rows in bins],
        [chances[rows].mean() for rows in bins],
        [right[rows].mean() for rows in bins],
    )
    counts, confidences, accuracies = (np.array(column, np.float64) for column in columns)
    return counts, confidences, accuracies


def per_class(labels: Labels, predicted: Labels, classes: list[str]) -> dict[str, dict[str, float]]:
    """Compute precision, recall, F1 and support of each class.

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


def confusion(labels: Labels, predicted: Labels, chosen: Labels) -> Labels:
    """Count true by predicted class among some classes: (k, k).

    Args:
        labels: (N,) class indices.
        predicted: (N,) likewise.
        chosen: (k,) the classes, ascending.
    """
    from sklearn import metrics as sk

    both = np.isin(labels, chosen) & np.isin(predicted, chosen)
    if not both.any():
        return np.zeros((len(chosen), len(chosen)), dtype=np.int64)
    counts: Labels = sk.confusion_matrix(labels[both], predicted[both], labels=chosen)
    return counts
