"""Weights between those that a training began with and those that it ended with.

model + weights of the start -> the best weights on the line between both, by a score.
Source: Wortsman et al. 2021, Robust fine-tuning of zero-shot models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

SHARES = (0.25, 0.5, 0.75)
"""Of the way, that are tried."""


def interpolate(
    model: keras.Model,
    start: list[NDArray[Any]],
    best: dict[str, float],
    judged: Callable[[], dict[str, float]],
) -> tuple[float, dict[str, float]]:
    """Leave the model with the best weights on the line from the start to where it is.

    Source: Wortsman et al. 2021, Robust fine-tuning of zero-shot models.

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

    by_share = {1.0: best}
    for share in SHARES:
        go(share)
        by_share[share] = judged()
    chosen = min(by_share, key=lambda share: (by_share[share]["val_score"], -share))
    go(chosen)
    return chosen, by_share[chosen]
