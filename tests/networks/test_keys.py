"""Cached arrays are never used for other settings of the network."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import frozen_part

from pipeline.features.activations import Source
from pipeline.networks import backbones, engines
from pipeline.networks.backbones import Backbone, glyph_cnn, keras_application, keras_file
from pipeline.networks.engines import Engine
from pipeline.networks.keras_forward import KerasForward

SIZE = 32
KERAS = engines.Config(Engine.keras)


def saved(path: Path, slope: float) -> str:
    """Two files with the same weights may be different networks: here, the slope differs."""
    entry = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(2, 3, name="conv", kernel_initializer=keras.initializers.Ones())(entry)
    x = keras.layers.LeakyReLU(slope, name="leaky")(keras.layers.Rescaling(1, -3000)(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    keras.Model(entry, keras.layers.Dense(2, name="out", kernel_initializer="ones")(x)).save(path)
    return str(path)


def weights(path: Path, network: keras.Model) -> str:
    network.save_weights(path)
    return str(path)


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, tuple[Any, dict[str, list[Any]]]]:
    """Kind -> its config, and other values of each of its settings."""
    application = keras_application.Config(
        name="MobileNetV2", weights=None, options={"alpha": 0.35}, path="x"
    )
    own = backbones.build(application, SIZE, 7).model
    return {
        "glyph_cnn": (
            glyph_cnn.Config(path="x"),
            {"weights": [None, weights(tmp_path / "g.weights.h5", glyph_cnn.network(8))]},
        ),
        "keras_application": (
            application,
            {
                "name": ["MobileNet"],
                "weights": [weights(tmp_path / "m.weights.h5", own)],
                "options": [{"alpha": 0.5}],
            },
        ),
        "keras_file": (
            keras_file.Config(path=saved(tmp_path / "a.keras", 0.3)),
            {
                "path": [saved(tmp_path / "same.keras", 0.3), saved(tmp_path / "slope.keras", 0.1)],
                "features": ["conv", "leaky"],
                "scale": [1 / 255, 2.0],
                "offset": [-1.0],
                "allow_code": [True],
            },
        ),
    }


@pytest.mark.parametrize("kind", ["glyph_cnn", "keras_application", "keras_file"])
def test_another_setting_has_another_key_or_the_same_result(
    kind: str, kinds: dict[str, tuple[Any, dict[str, list[Any]]]]
) -> None:
    config, others = kinds[kind]
    size = 8 if kind == "glyph_cnn" else SIZE
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3)).astype(np.uint8)
    settable = {f.name for f in fields(config)} - {"kind", "use"}
    assert settable - {"path"} <= set(others), "each setting of the kind is changed"

    def result(config: Any) -> tuple[dict[str, Any], np.ndarray]:
        built: Backbone = backbones.build(config, size, 0)
        frozen = frozen_part(engine=KERAS, batch_size=4)
        source = Source(frozen, built.model, built.sha256, images, "images")
        return source.key("features", np.arange(4)), KerasForward(built.model, 4).all(images)

    key, features = result(config)
    assert result(config)[0] == key, "building it again changes nothing"
    seen = set()
    for name, values in others.items():
        for value in values:
            other_key, others_features = result(replace(config, **{name: value}))
            same = np.array_equal(features, others_features)
            assert other_key != key or same, f"{name}={value}"
            seen.add((name, same))
    assert any(not same for _, same in seen), "some settings do change the result"
