"""Facts: everything that metrics need to know about each image.

labels (N,) + probabilities (N, K) -> arrays (N,). Probabilities may exceed memory: they are read a
few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
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

    def of(self, chosen: NDArray[np.bool_]) -> Facts:
        """Select some images."""
        arrays = {
            name: value[chosen]
            for name, value in vars(self).items()
            if name not in ("classes", "probabilities")
        }
        return replace(self, **arrays, probabilities=None)


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
