"""Useless features stop the pipeline in extract_features."""

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import frozen_part

from pipeline.errors import InputError
from pipeline.features.store import Config
from pipeline.networks.backbones import keras_file
from pipeline.stages import extract_features
from pipeline.storage.outputs import Folders


def extracted(model: keras.Model, repository: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    (tmp_path / "out").mkdir()
    backbone = keras_file.Config(use="keras_file", path=str(tmp_path / "net.keras"))
    read = Folders(tmp_path / "out", repository / "outputs" / "prepare")
    extract_features.run(frozen_part(backbone), Config(), read)


def network(kernel: float) -> keras.Model:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Constant(kernel))(entry)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(entry, keras.layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.nan, r"net returns NaN or infinity for 1797 of 1797 images"),
        (1e38, r"NaN or infinity for \d+ of 1797"),
        (0.0, "net returns the same features for all 1797"),
    ],
)
def test_features_without_a_meaning(
    kernel: float, message: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        extracted(network(kernel), repository, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_others_are_taken(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extracted(network(0.5), repository, tmp_path)
    assert np.load(tmp_path / "out" / "features.npy").shape == (1797, 4)
