"""The model file: the same bytes, and everything that predict needs."""

from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.data.decoding import Decoding
from pipeline.errors import InputError
from pipeline.networks import model_file
from pipeline.networks.model_file import Card
from pipeline.serving.classifier import Classifier

CARD = Card(["a", "b"], 8, Decoding(), 32, 2)


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    entry = keras.Input((8, 8, 3), name="in")
    x = keras.layers.Conv2D(4, 3, name="conv")(entry)
    shared = keras.layers.Dropout(0.5, name="drop")
    x = keras.layers.Flatten(name="flat")(shared(x))
    return keras.Model(entry, keras.layers.Dense(2, activation="softmax", name="out")(x), name="n")


def test_two_saves_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        model_file.save(network(), tmp_path / f"{name}.keras", CARD)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    model = network()
    model_file.save(model, tmp_path / "m.keras", CARD)
    again, card = model_file.load(tmp_path / "m.keras")
    assert card == CARD
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
    plain = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), plain.predict(x, verbose=0))


def test_files_that_are_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model at .*: run dvc repro first"):
        model_file.load(tmp_path / "m.keras")
    (tmp_path / "m.keras").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"must be a \.keras file"):
        model_file.load(tmp_path / "m.keras")
    network().save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="is a network without class names"):
        model_file.load(tmp_path / "m.keras")
    model_file.save(network(), tmp_path / "m.keras", CARD)
    with pytest.raises(InputError, match="no reference data for its training images"):
        Classifier(tmp_path / "m.keras")
