"""Weights between those that a training began with and those that it ended with.

model + weights of the start -> weights on the line between both, chosen by a score.
Sources: Wortsman et al. 2021, Robust fine-tuning of zero-shot models; for the choice, the rule of
one standard error, Breiman et al. 1984, Classification and regression trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.training import score
from pipeline.training.settings import Monitor

SHARES = (0.25, 0.5, 0.75)
"""Of the way, that are tried beside the whole."""


def interpolate(
    model: keras.Model,
    start: list[NDArray[Any]],
    labels: NDArray[np.int64],
    probabilities: Callable[[], NDArray[np.float32]],
    monitor: Monitor,
) -> tuple[float, dict[str, float]]:
    """Leave the model with weights on the line from the start to where it is.

    The shortest way is taken whose score is within a standard error of the best one's: forty
    images cannot tell them apart, and the end of a training on few images is the worst of them
    on others.

    Args:
        model: As it ended.
        start: Values of its variables when it began.
        labels: (N,) of the validation split.
        probabilities: (N, K) that the model gives as it is.
        monitor: What counts.

    Returns:
        How far along that line they are, and the validation metrics there.
    """
    end = [variable.numpy() for variable in model.variables]
    moved = [
        (variable, first, last)
        for variable, first, last in zip(model.variables, start, end, strict=True)
        if np.issubdtype(last.dtype, np.floating) and (first != last).any()
    ]

    def go(share: float) -> None:
        for variable, first, last in moved:
            variable.assign(last if share == 1 else first + np.float32(share) * (last - first))

    metrics, losses = {}, {}
    for share in (*SHARES, 1.0):
        go(share)
        found = probabilities()
        metrics[share] = score.judge(labels, found, monitor)
        losses[share] = score.losses(labels, found, monitor)
    best = min(metrics, key=lambda share: (metrics[share]["val_score"], -share))
    chosen = next(share for share in metrics if _within_an_error(losses[share] - losses[best]))
    go(chosen)
    return chosen, metrics[chosen]


def _within_an_error(worse_by: NDArray[np.float64]) -> bool:
    """Whether the mean of differences, (N,) images, is within its standard error of none."""
    error = worse_by.std(ddof=1) / np.sqrt(len(worse_by)) if len(worse_by) > 1 else 0.0
    return bool(worse_by.mean() <= error)
