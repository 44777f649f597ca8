"""Average the weights of several fine-tunings of one cut if that improves the score.

trainings -> one model. Source: Wortsman et al. 2022, Model soups; the greedy recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.finetuning.settings import Config

if TYPE_CHECKING:
    import keras

Metrics = dict[str, float]


@dataclass(frozen=True)
class Ingredient:
    """A training that may be averaged.

    Attributes:
        weights: Values of all variables of the model.
        best: Its validation metrics.
    """

    weights: list[NDArray[Any]]
    best: Metrics

    @classmethod
    def of(cls, model: keras.Model, best: Metrics) -> Ingredient:
        """Copy the model's weights."""
        return cls([variable.numpy() for variable in model.variables], best)


def variants(config: Config) -> list[Config]:
    """List the settings of each training: those of the section, then those changed by `soup`."""
    alone = replace(config, soup=[])
    return [alone, *(replace(alone, **changes) for changes in config.soup)]


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
    ranked = sorted(range(len(ingredients)), key=lambda n: ingredients[n].best["val_score"])
    chosen, best = ranked[:1], ingredients[ranked[0]].best
    for number in ranked[1:]:
        _assign(model, [ingredients[n].weights for n in (*chosen, number)])
        averaged = evaluated()
        if averaged["val_score"] < best["val_score"]:
            chosen, best = [*chosen, number], averaged
    _assign(model, [ingredients[n].weights for n in chosen])
    return best, chosen


def _assign(model: keras.Model, several: Sequence[list[NDArray[Any]]]) -> None:
    """Set the mean of several sets of weights; counters are those of the first."""
    for variable, values in zip(model.variables, zip(*several, strict=True), strict=True):
        floating = np.issubdtype(values[0].dtype, np.floating)
        variable.assign(np.mean(values, axis=0, dtype=values[0].dtype) if floating else values[0])
