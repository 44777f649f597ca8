"""Features that nothing can be learnt from stop the pipeline where they are made."""

from pathlib import Path

import keras
import numpy as np
import pytest
from pipeline.features.extraction import extract

from pipeline.cluster.connection import Config as Cluster
from pipeline.errors import InputError
from pipeline.features import augmentation
from pipeline.features.store import Config, Store
from pipeline.networks import engines
from pipeline.networks.backbones import keras_file


def extracted(model: keras.Model, repository: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    (tmp_path / "out").mkdir()
    extract(
        keras_file.Config(use="keras_file", path=str(tmp_path / "net.keras")),
        augmentation.Config(),
        Store(Config(), tmp_path / "store"),
        engine=engines.Config(),
        cluster=Cluster(),
        batch_size=32,
        seed=0,
        threads=2,
        prepared=repository / "outputs" / "prepare",
        out=tmp_path / "out",
    )


def network(kernel: float) -> keras.Model:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, kernel_initializer=keras.initializers.Constant(kernel))(entry)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(entry, keras.layers.Dense(3)(x))


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        (np.nan, r"net gives NaN or infinity for 1797 of 1797 pictures"),
        (1e38, r"NaN or infinity for \d+ of 1797"),
        (0.0, "net gives the same for all 1797"),
    ],
)
def test_features_without_a_meaning(
    kernel: float, told: str, repository: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        extracted(network(kernel), repository, tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_others_are_taken(repository: Path, tmp_path: Path) -> None:
    extracted(network(0.5), repository, tmp_path)
    assert np.load(tmp_path / "out" / "features.npy").shape == (1797, 4)
