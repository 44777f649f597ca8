"""A soup is the plain mean of trainings that improve the score, and never worse than the best."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from test_finetuning import fit, head, make, same

from pipeline.errors import InputError
from pipeline.finetuning import soup
from pipeline.finetuning.settings import Config
from pipeline.finetuning.soup import Ingredient

__all__ = ["head", "make"]


def line(value: float) -> tuple[keras.Model, Ingredient]:
    """A model of one weight, whose score is the distance of the weight to 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), value, np.float32)])
    return model, Ingredient.of(model, {"val_score": abs(1 - value)})


def test_what_improves_the_average_is_in_it() -> None:
    model, _ = line(0.0)
    parts = [line(value)[1] for value in (3.0, 0.5, 9.0, 1.25)]

    def judged() -> dict[str, float]:
        return {"val_score": abs(1 - float(model.get_weights()[0][0, 0]))}

    best, kept = soup.cook(model, parts, judged)
    # The best alone is 1.25, with 0.5 it is 0.875; 3 and 9 would lead away from 1.
    assert kept == [3, 1]
    assert best["val_score"] == pytest.approx(0.125)
    assert model.get_weights()[0][0, 0] == pytest.approx(0.875)


def test_a_soup_of_fine_tunings(make: Any, head: Path) -> None:
    others = [{"learning_rate": 3e-3}, {"learning_rate": 5e-4, "weight_decay": 0.1}]
    settings = {"cut": "block2_conv1", "epochs": 3}
    alone = [fit(make(), head, **{**settings, **one})[0] for one in ({}, *others)]
    tuned, weights = fit(make(), head, **settings, soup=others)
    scores = [one.fitted.best["val_score"] for one in alone]
    assert tuned.fitted.best["val_score"] <= min(scores)
    assert tuned.soup[0] == int(np.argmin(scores))
    _, again = fit(make(), head, **settings, soup=others)
    assert same(weights, again)


@pytest.mark.parametrize("changes", [{"cut": "block1_conv1"}, {"rate": 1}, "learning_rate"])
def test_what_must_be_the_same_in_all(changes: Any) -> None:
    with pytest.raises(
        InputError, match=r"finetune.soup must list settings .* got .*: it may hold"
    ):
        soup.variants(Config(soup=[changes]))
