"""Facts: everything that metrics need to know about each image.

labels (N,) + probabilities (N, K) -> arrays (N,). Probabilities may exceed memory: they are read a
few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

TOP = 5
"""k of top-k accuracy, which is reported with more classes than that."""
BINS = 15
"""Number of equal-width confidence bins for the expected calibration error."""

MAX_AREA_VALUES = 500_000
"""Maximum number of probabilities for an interval of ROC-AUC, which sorts them for each draw."""

_VALUES = 4_000_000


@dataclass(frozen=True)
class Facts:
    """A model's predictions for images.

    Attributes:
        labels: (N,) class indices.
        predicted: (N,) likewise.
        confidence: (N,) probability of the predicted class.
        loss: (N,) negative log probability of the true class.
        brier: (N,) half the squared distance to the one-hot label: 0 to 1.
        bins: (N,) bins of the calibration error.
        in_top: (N,) True if the true class is among the `TOP` most probable.
        totals: (N,) sum of each row of probabilities; nearly 1.
        classes: K.
        probabilities: (N, K) as provided; None for a part of the images.
    """

    labels: Labels
    predicted: Labels
    confidence: Floats
    loss: Floats
    brier: Floats
    bins: Labels
    in_top: NDArray[np.bool_]
    totals: Floats
    classes: int
    probabilities: NDArray[np.float32] | None

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) True if the prediction is the label."""
        same: NDArray[np.bool_] = self.predicted == self.labels
        return same

    @property
    def width(self) -> int:
        return self.classes

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
            if name not in ("classes", "probabilities")
        }
        return replace(self, **arrays, probabilities=None)

    def weighted(self, counts: Floats) -> dict[str, Floats]:
        """Compute metrics; ROC-AUC only if the images are few enough to sort them each time."""
        from pipeline.data.tasks import metrics

        values = metrics.weighted(self, counts)
        if self.probabilities is not None and self.probabilities.size <= MAX_AREA_VALUES:
            values[metrics.ROC_AUC] = metrics.roc_auc(self, counts)
        return values

    def values(self, desc: str = "") -> dict[str, float]:
        from pipeline.data.tasks import metrics

        return metrics.of(self, f"ROC-AUC, {desc}" if desc else "")

    def scores(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        from pipeline.data.tasks import metrics

        return metrics.per_class(self.labels, self.predicted, list(classes))

    def caption(self, place: int, classes: Sequence[str]) -> str:
        from pipeline.data.tasks.figures import short

        name = short(classes[int(self.predicted[place])], 18)
        return f"predicted {name} ({self.confidence[place]:.2f})"


def gather(labels: Labels, probabilities: NDArray[np.float32], desc: str = "") -> Facts:
    """Read all probabilities once.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K), memory-mapped or not; rows are normalized.
        desc: Name of the progress bar; no bar if empty.
    """
    parts = zip(*_parts(labels, probabilities, desc), strict=True)
    joined: list[NDArray[Any]] = [np.concatenate(columns) for columns in parts]
    predicted, confidence, loss, brier, bins, in_top, totals = joined
    return Facts(
        labels,
        predicted,
        confidence,
        loss,
        brier,
        bins,
        in_top,
        totals,
        int(probabilities.shape[1]),
        probabilities,
    )


def _parts(
    labels: Labels, probabilities: NDArray[np.float32], desc: str
) -> Iterator[tuple[NDArray[np.generic], ...]]:
    """Yield predicted, confidence, loss, brier, bins, in_top and totals, a few rows at a time."""
    count, classes = probabilities.shape
    step = max(1, _VALUES // classes)
    with tqdm(
        total=count, desc=desc, unit="image", delay=1, leave=False, disable=None if desc else True
    ) as bar:
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
