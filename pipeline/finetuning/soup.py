"""Average the weights of several fine-tunings of one cut if that improves the score.

trainings -> one model. Source: Wortsman et al. 2022, Model soups; the greedy recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Metrics = dict[str, float]


Ingredient = tuple[list[NDArray[Any]], Metrics]
"""A training: values of all variables of the model, and its validation metrics."""


def cook(
    model: keras.Model, ingredients: Sequence[Ingredient], evaluated: Callable[[], Metrics]
) -> tuple[Metrics, list[int]]:
    """Average those that improve the model, starting with the best one.

    Args:
        model: The model whose weights they are.
        ingredients: Two or more trainings.
        evaluated: Returns the validation metrics of the model with its current weights.

    Returns:
        The metrics of the average, and the trainings in it.
    """
    ranked = sorted(range(len(ingredients)), key=lambda n: ingredients[n][1]["val_score"])
    chosen, best = ranked[:1], ingredients[ranked[0]][1]
    for number in ranked[1:]:
        _assign(model, [ingredients[n][0] for n in (*chosen, number)])
        averaged = evaluated()
        if averaged["val_score"] < best["val_score"]:
            chosen, best = [*chosen, number], averaged
    _assign(model, [ingredients[n][0] for n in chosen])
    return best, chosen


def _assign(model: keras.Model, several: Sequence[list[NDArray[Any]]]) -> None:
    """Set the mean of several sets of weights; counters are those of the first."""
    for variable, values in zip(model.variables, zip(*several, strict=True), strict=True):
        floating = np.issubdtype(values[0].dtype, np.floating)
        variable.assign(np.mean(values, axis=0, dtype=values[0].dtype) if floating else values[0])
