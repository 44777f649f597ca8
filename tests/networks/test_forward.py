"""An image's outputs do not depend on its position in the batch."""

import keras
import numpy as np
import pytest

from pipeline.networks.keras_forward import KerasForward


def shallow() -> keras.Model:
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(32, 3, activation="relu")(x)
    x = keras.layers.Dense(24, activation="gelu")(x)  # at each place, as in ConvNeXt
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(64, use_bias=False)(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))


def nested() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(5)(shallow()(inputs)))


@pytest.mark.parametrize("build", [shallow, nested])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_places_change_nothing(build: type, batch_size: int) -> None:
    keras.utils.set_random_seed(0)
    model = build()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(70, 8, 8, 3)).astype(np.float32)
    places = rng.permutation(70)
    forward = KerasForward(model, batch_size)
    outputs = forward.all(images)
    assert (forward.all(images, places) == outputs[places]).all()
    np.testing.assert_allclose(outputs, model(images, training=False), atol=1e-5)
