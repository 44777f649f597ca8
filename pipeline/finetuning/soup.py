"""Average the weights of several fine-tunings of one cut, where the average has a better score.

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
    """A training that may go into the soup.

    Attributes:
        weights: Of all variables of the model.
        best: Its validation metrics.
    """

    weights: list[NDArray[Any]]
    best: Metrics

    @classmethod
    def of(cls, model: keras.Model, best: Metrics) -> Ingredient:
        """The model as it is."""
        return cls([variable.numpy() for variable in model.variables], best)


def variants(config: Config) -> list[Config]:
    """The settings of each training: those of the section, then those with `soup`'s changes."""
    alone = replace(config, soup=[])
    return [alone, *(replace(alone, **changes) for changes in config.soup)]


def cook(
    model: keras.Model, ingredients: Sequence[Ingredient], judged: Callable[[], Metrics]
) -> tuple[Metrics, list[int]]:
    """Leave the model with the average of those that improve it, the best one first.

    Args:
        model: Whose weights they are.
        ingredients: Two or more.
        judged: The validation metrics of the model as it is.

    Returns:
        The metrics of the average, and which ingredients are in it.
    """
    ranked = sorted(range(len(ingredients)), key=lambda n: ingredients[n].best["val_score"])
    kept, best = ranked[:1], ingredients[ranked[0]].best
    for number in ranked[1:]:
        _assign(model, [ingredients[n].weights for n in (*kept, number)])
        averaged = judged()
        if averaged["val_score"] < best["val_score"]:
            kept, best = [*kept, number], averaged
    _assign(model, [ingredients[n].weights for n in kept])
    return best, kept


def _assign(model: keras.Model, several: Sequence[list[NDArray[Any]]]) -> None:
    """Give the model the mean of several sets of weights; counters are those of the first."""
    for variable, values in zip(model.variables, zip(*several, strict=True), strict=True):
        floating = np.issubdtype(values[0].dtype, np.floating)
        variable.assign(np.mean(values, axis=0, dtype=values[0].dtype) if floating else values[0])
