"""Interpolation between the weights before and after a training, chosen on validation images."""

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.training import interpolation
from pipeline.training.examples import Examples
from pipeline.training.settings import Monitor, Training

pytestmark = pytest.mark.xdist_group("interpolation")


@pytest.fixture(scope="module")
def moved() -> tuple[keras.Model, list[NDArray[Any]], list[NDArray[Any]]]:
    """A classifier, its first weights, and better ones."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    first, last = np.array([[1, -1], [0, 0]]), np.array([[1, -1], [0.9, -0.9]])
    bias = np.zeros(2, np.float32)
    return model, [first.astype(np.float32), bias], [last.astype(np.float32), bias]


def chosen(moved: Any, images: int, seed: int, monitor: Monitor) -> tuple[float, Any, Any]:
    """Return the chosen share, the weights there, and the metrics."""
    model, first, last = moved
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(images, 2)).astype(np.float32)
    labels = (inputs.sum(axis=1) + rng.logistic(scale=0.6, size=images) < 0).astype(np.int64)
    model.set_weights(last)
    val = Examples(inputs, np.arange(images), labels)
    share, actual = interpolation.interpolate(model, first, val, Training(monitor=monitor))
    return share, model.get_weights(), actual


@pytest.mark.slow
@pytest.mark.parametrize("monitor", list(Monitor))
def test_many_images_go_all_the_way_and_few_do_not(moved: Any, monitor: Monitor) -> None:
    many = [chosen(moved, 20_000, seed, monitor)[0] for seed in range(3)]
    assert min(many) >= 0.75
    few = [chosen(moved, 30, seed, monitor)[0] for seed in range(10)]
    assert np.mean(few) < np.mean(many)
    assert min(few) == min(interpolation.SHARES)


def test_the_weights_are_those_of_the_share(moved: Any) -> None:
    _, first, last = moved
    share, weights, actual = chosen(moved, 40, 0, Monitor.log_loss)
    np.testing.assert_allclose(weights[0], first[0] + share * (last[0] - first[0]), atol=1e-6)
    assert set(actual) == {"val_loss", "val_accuracy", "val_score", "temperature"}
