"""Facts: everything that metrics need to know about each image, and the metrics.

labels (N,) + probabilities (N, K) -> arrays (N,) -> numbers, also for many bootstrap draws at once.
Probabilities may exceed memory: they are read a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.tasks.figures import short
from pipeline.storage import progress

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

TOP = 5
"""k of top-k accuracy, which is reported with more classes than that."""
BINS = 15
"""Number of equal-width confidence bins for the expected calibration error."""

MAX_AREA_VALUES = 500_000
"""Maximum number of probabilities for an interval of ROC-AUC, which sorts them for each draw."""

TOP_K = f"top_{TOP}_accuracy"
FURTHER = ("macro_f1", "balanced_accuracy", "brier", "calibration_error", TOP_K, "roc_auc")
"""Metrics besides accuracy and log loss."""

_VALUES, _AREA_VALUES = 4_000_000, 8_000_000
_BIN_IMAGES, _MAX_BINS = 20, 12
"""Images per point of a reliability diagram, and its points."""


@dataclass(frozen=True)
class Facts:
    """A model's predictions for images.

    Attributes:
        labels: (N,) class indices.
        width: K.
        probabilities: (N, K) as provided; None for a part of the images.
        predicted: (N,) class indices.
        confidence: (N,) probability of the predicted class.
        loss: (N,) negative log probability of the true class.
        brier: (N,) half the squared distance to the one-hot label: 0 to 1.
        bins: (N,) bins of the calibration error.
        in_top: (N,) True if the true class is among the `TOP` most probable.
        totals: (N,) sum of each row of probabilities; nearly 1.
    """

    labels: Labels
    width: int
    probabilities: NDArray[np.float32] | None
    predicted: Labels
    confidence: Floats
    loss: Floats
    brier: Floats
    bins: Labels
    in_top: NDArray[np.bool_]
    totals: Floats

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) True if the prediction is the label."""
        same: NDArray[np.bool_] = self.predicted == self.labels
        return same

    @property
    def wrong(self) -> Floats:
        """(N,) 1 for a mistake, 0 otherwise."""
        return (~self.right).astype(np.float64)

    @property
    def explained(self) -> Labels:
        return self.predicted

    def of(self, chosen: NDArray[np.bool_]) -> Facts:
        arrays = {
            name: value[chosen]
            for name, value in vars(self).items()
            if name not in ("width", "probabilities")
        }
        return replace(self, **arrays, probabilities=None)

    def weighted(self, counts: Floats) -> dict[str, Floats]:
        """Compute metrics; ROC-AUC only if the images are few enough to sort them each time."""
        turned, total = np.ascontiguousarray(counts.T), counts.sum(axis=1)
        right = self.right.astype(np.float64)
        hits = _sums(self.labels, self.width, right) @ turned
        support = _sums(self.labels, self.width) @ turned
        claimed = _sums(self.predicted, self.width) @ turned
        gaps = _sums(self.bins, BINS, self.confidence - right) @ turned
        with np.errstate(invalid="ignore"):
            recall = hits / support
        values = {
            "accuracy": hits.sum(axis=0) / total,
            "macro_f1": (2 * hits / np.maximum(support + claimed, 1)).mean(axis=0),
            # A class missing from a draw does not count.
            "balanced_accuracy": np.nanmean(recall, axis=0),
            "log_loss": counts @ self.loss / total,
            "brier": counts @ self.brier / total,
            # Guo et al. 2017: mean distance of confidence and accuracy over bins of equal width.
            "calibration_error": np.abs(gaps).sum(axis=0) / total,
        }
        if self.width > TOP:
            values[TOP_K] = counts @ self.in_top.astype(np.float64) / total
        if self.probabilities is not None and self.probabilities.size <= MAX_AREA_VALUES:
            values["roc_auc"] = self.roc_auc(counts)
        return values

    def roc_auc(self, counts: Floats, desc: str = "") -> Floats:
        """Compute the one-vs-rest ROC-AUC, averaged over classes: (R,).

        `counts` is as for `weighted`; `desc` names a progress bar.
        """
        assert self.probabilities is not None
        # One image per row, so that sums run along memory; multiples of one half are exact in
        # float32, which takes half the time.
        rows = np.ascontiguousarray(counts.T, dtype=np.float32)
        total, areas = counts.sum(axis=1), []
        step = max(1, _AREA_VALUES // max(len(self.labels), 1))
        with progress.bar(desc=desc, total=self.width, unit="class") as bar:
            for first in range(0, self.width, step):
                part = self.probabilities[:, first : first + step].astype(np.float64)
                part /= self.totals[:, None]
                scores = np.ascontiguousarray(part.T)
                del part
                for place, column in enumerate(scores, first):
                    order = np.argsort(column, kind="stable")
                    positive = self.labels[order] == place
                    areas.append(_area(column[order], positive, rows[order], total))
                    bar.update()
                del scores, column  # or the next ones would be in memory at the same time
        every = np.stack(areas)
        none = np.isnan(every).all(axis=0)  # all images of a draw are of one class
        mean: Floats = np.where(none, np.nan, np.nanmean(np.where(none, 0, every), axis=0))
        return mean

    def values(self, desc: str = "") -> dict[str, float]:
        once = np.ones((1, len(self.labels)))
        values = self.weighted(once)
        if self.probabilities is not None and "roc_auc" not in values:
            values["roc_auc"] = self.roc_auc(once, f"ROC-AUC, {desc}" if desc else "")
        return {name: float(value[0]) for name, value in values.items()}

    def scores(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        from sklearn.metrics import precision_recall_fscore_support

        every = np.arange(len(classes))
        scores = precision_recall_fscore_support(
            self.labels, self.predicted, labels=every, zero_division=0
        )
        names = ("precision", "recall", "f1", "support")
        return {
            label: {name: float(score[place]) for name, score in zip(names, scores, strict=True)}
            for place, label in enumerate(classes)
        }

    def caption(self, place: int, classes: Sequence[str]) -> str:
        name = short(classes[int(self.predicted[place])], 18)
        return f"predicted {name} ({self.confidence[place]:.2f})"


def gather(labels: Labels, probabilities: NDArray[np.float32], desc: str = "") -> Facts:
    """Read all (N, K) probabilities, memory-mapped or not, once; rows are normalized."""
    parts = zip(*_parts(labels, probabilities, desc), strict=True)
    joined: list[NDArray[Any]] = [np.concatenate(columns) for columns in parts]
    return Facts(labels, int(probabilities.shape[1]), probabilities, *joined)


def _parts(
    labels: Labels, probabilities: NDArray[np.float32], desc: str
) -> Iterator[tuple[NDArray[np.generic], ...]]:
    """Yield predicted, confidence, loss, brier, bins, in_top and totals, a few rows at a time."""
    count, classes = probabilities.shape
    step = max(1, _VALUES // classes)
    with progress.bar(desc=desc, total=count) as bar:
        for start in range(0, max(count, 1), step):
            part = np.asarray(probabilities[start : start + step])
            label = labels[start : start + step]
            exact = part.astype(np.float64)
            totals = exact.sum(axis=1)
            exact /= totals[:, None]
            rows = np.arange(len(part))
            own, confidence = exact[rows, label], exact.max(axis=1)
            squares = (exact**2).sum(axis=1) - own**2 + (1 - own) ** 2
            # Ties are ordered by descending class index, as in scikit-learn.
            after = np.arange(classes) > label[:, None]
            above = (exact > own[:, None]) | ((exact == own[:, None]) & after)
            yield (
                part.argmax(axis=1),
                confidence,
                -np.log(np.clip(own, np.finfo(np.float64).eps, 1)),
                0.5 * squares,
                np.minimum((confidence * BINS).astype(np.int64), BINS - 1),
                above.sum(axis=1) < TOP,
                totals,
            )
            bar.update(len(part))


def _sums(groups: Labels, count: int, values: Floats | None = None) -> Any:
    """Build a sparse (count, N) matrix that sums values by group."""
    from scipy import sparse

    images = len(groups)
    weights = np.ones(images) if values is None else values
    return sparse.csr_matrix((weights, (groups, np.arange(images))), shape=(count, images))


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


def binned(chances: Floats, right: NDArray[Any]) -> Floats:
    """Compute count, mean chance and share of right ones of bins with equal counts: (3, B)."""
    order = np.argsort(chances, kind="stable")
    bins = np.array_split(order, np.clip(len(order) // _BIN_IMAGES, 1, _MAX_BINS))
    columns = [(len(rows), chances[rows].mean(), right[rows].mean()) for rows in bins]
    return np.array(columns, np.float64).T


def confusion(labels: Labels, predicted: Labels, chosen: Labels) -> Labels:
    """Count true by predicted class among k classes, which are ascending: (k, k)."""
    both = np.isin(labels, chosen) & np.isin(predicted, chosen)
    counts = np.zeros((len(chosen), len(chosen)), np.int64)
    places = (np.searchsorted(chosen, part[both]) for part in (labels, predicted))
    np.add.at(counts, tuple(places), 1)
    return counts
