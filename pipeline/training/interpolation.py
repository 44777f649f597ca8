"""Interpolate between the weights at the start and at the end of a training.

model + initial weights -> weights on the line between both, chosen by a score. Sources: Wortsman et
al. 2021, Robust fine-tuning of zero-shot models; for the choice, the one-standard-error rule,
Breiman et al. 1984, Classification and regression trees.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.training import steps
from pipeline.training.examples import Examples
from pipeline.training.settings import Training

SHARES = (0.25, 0.5, 0.75)
"""Positions on the line to try, besides the end."""


def interpolate(
    model: keras.Model, start: list[NDArray[Any]], val: Examples, settings: Training
) -> tuple[float, dict[str, float]]:
    """Move the model's weights along the line from the start to their current values.

    The position closest to the start is chosen whose score is within a standard error of the best:
    a few dozen images cannot distinguish them, and the end of a training on few images generalizes
    worst.

    Args:
        model: The trained model.
        start: Initial values of its variables.
        val: The validation split.
        settings: Settings of the training.

    Returns:
        The position on the line, and the validation metrics there.
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
        predictions = steps.probabilities(model, val, settings.batch_size)
        metrics[share] = val.task.judge(val.targets, predictions, str(settings.monitor))
        losses[share] = val.task.losses(val.targets, predictions, str(settings.monitor))
    best = min(metrics, key=lambda share: (metrics[share]["val_score"], -share))
    chosen = next(share for share in metrics if _within_an_error(losses[share] - losses[best]))
    go(chosen)
    return chosen, metrics[chosen]


def _within_an_error(worse_by: NDArray[np.float64]) -> bool:
    """Check if the mean of (N,) differences is within its standard error of zero."""
    error = worse_by.std(ddof=1) / np.sqrt(len(worse_by)) if len(worse_by) > 1 else 0.0
    return bool(worse_by.mean() <= error)
