"""A model soup is the mean of trainings that improve the score, and never worse than the best."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from test_finetuning import fit, head, make, same

from pipeline import config
from pipeline.errors import InputError
from pipeline.finetuning import soup

__all__ = ["head", "make"]


def line(value: float) -> tuple[keras.Model, soup.Ingredient]:
    """A model of one weight, whose score is the distance of the weight to 1."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), value, np.float32)])
    return model, ([v.numpy() for v in model.variables], {"val_score": abs(1 - value)})


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


@pytest.mark.slow
def test_a_soup_of_fine_tunings(make: Any, head: Path) -> None:
    others = [{"learning_rate": 3e-3}, {"learning_rate": 5e-4, "weight_decay": 0.1}]
    settings = {"cut": "block2_conv1", "epochs": 3}
    alone = [fit(make(), head, **{**settings, **item})[0] for item in ({}, *others)]
    tuned, weights = fit(make(), head, **settings, soup=others)
    scores = [item.fitted.best["val_score"] for item in alone]
    assert tuned.fitted.best["val_score"] <= min(scores)
    assert tuned.soup[0] == int(np.argmin(scores))
    _, again = fit(make(), head, **settings, soup=others)
    assert same(weights, again)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("{cut: block1_conv1}", r"finetune.soup\[0\] may hold .*, got cut"),
        ("{rate: 1}", r"finetune.soup\[0\] may hold .*, got rate"),
        ("learning_rate", r"finetune.soup\[0\] must be settings such as .*, got learning_rate"),
        ("{learning_rate: -1}", r"finetune.soup\[0\].learning_rate must be above 0, got -1"),
        ("{epochs: many}", r"finetune.soup\[0\].epochs must be a number or auto, got 'many'"),
        ("{weight_decay: x}", r"finetune.soup\[0\].*weight_decay"),
    ],
)
def test_settings_of_a_soup_are_checked_like_others(
    changes: str, message: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    with pytest.raises(InputError, match=message) as caught:
        config.compose([f"finetune.soup=[{changes}]"])
    assert "\n" not in str(caught.value)
