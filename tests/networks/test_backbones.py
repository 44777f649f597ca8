"""Backbones: the network's own preprocessing, the user's own models, the right weights."""

import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import Run

from pipeline.errors import InputError
from pipeline.networks import backbones
from pipeline.networks.backbones import glyph_cnn, keras_application, keras_file
from pipeline.storage.digests import file_sha256

ALPHA_035 = {"alpha": 0.35}


def application(name: str, weights: str | None = None, size: int = 64, **options: float):
    config = keras_application.Config(name=name, weights=weights, options=options)
    return backbones.build(config, size, 0)


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "EfficientNetV2B0", "DenseNet121"])
def test_preprocessing_is_the_networks_own_and_inside(name: str) -> None:
    x = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.float32)
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)
    plain = network(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 3))
    preprocess = sys.modules[network.__module__].preprocess_input
    expected = plain(preprocess(x.copy()), training=False)
    found = application(name).model(x, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_real_weights_by_path_and_by_name_are_the_same(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    by_path = application("MobileNetV2", str(path), 224, **ALPHA_035)
    home = shared / "weights" / "keras_home"
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(home))
    by_name = application("MobileNetV2", "imagenet", 224, **ALPHA_035)
    assert by_path.weights_sha256 == by_name.weights_sha256
    assert (
        application("MobileNetV2", None, 224, **ALPHA_035).weights_sha256 != by_path.weights_sha256
    )


def test_imagenet_without_network_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    with pytest.raises(InputError) as caught:
        application("MobileNetV2", "imagenet", 224)
    told = str(caught.value)
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in told
    assert "set backbone.weights to the path" in told


def test_what_cannot_be_a_backbone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 'MobilNet': see"):
        application("MobilNet")
    with pytest.raises(InputError, match=r"nowhere\.h5: no such file"):
        application("VGG16", "nowhere.h5")
    with pytest.raises(InputError, match="image_size=16 is too small for InceptionV3"):
        application("InceptionV3", None, 16)
    pointer = tmp_path / "w.weights.h5"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="is a git-lfs pointer"):
        application("VGG16", str(pointer))
    with pytest.raises(InputError, match="does not take weights="):
        application("VGG16", str(glyph_cnn.WEIGHTS))


def saved(model: keras.Model, path: Path) -> Path:
    model.save(path)
    return path


def mlp() -> keras.Model:
    dense = [keras.layers.Dense(32, activation="relu", name=f"dense{n}") for n in (1, 2, 3)]
    return keras.Sequential([keras.Input((784,)), *dense, keras.layers.Dense(10, name="out")])


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_model_that_takes_vectors(tmp_path: Path, suffix: str) -> None:
    model = mlp()
    path = saved(model, tmp_path / f"mlp.{suffix}")
    body = backbones.build(keras_file.Config(path=str(path), scale=1 / 255), 28, 0).model
    pictures = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.float32)
    rgb = np.repeat(pictures, 3, axis=-1)
    features = keras.Model(model.inputs, model.get_layer("dense3").output)
    expected = features.predict(pictures.reshape(3, 784) / 255, verbose=0)
    np.testing.assert_allclose(body.predict(rgb, verbose=0), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=r"takes \(784,\): set prepare\.image_size=28"):
        backbones.build(keras_file.Config(path=str(path)), 32, 0)


def test_a_model_that_takes_pictures_and_a_named_feature(tmp_path: Path) -> None:
    entry = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(entry)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(entry, keras.layers.Dense(2, name="out")(x))
    path = str(saved(model, tmp_path / "net.keras"))
    assert backbones.build(keras_file.Config(path=path), 20, 0).model.output_shape == (None, 4)
    by_conv = backbones.build(keras_file.Config(path=path, features="conv"), 20, 0)
    assert by_conv.model.layers[-1].name == "features"
    with pytest.raises(InputError, match=r"got 'con'; the nearest are conv"):
        backbones.build(keras_file.Config(path=path, features="con"), 20, 0)


def test_code_in_a_file_runs_only_when_asked(tmp_path: Path) -> None:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: t / 255.0)(entry)
    x = keras.layers.Flatten(name="flat")(x)
    path = str(saved(keras.Model(entry, keras.layers.Dense(2)(x)), tmp_path / "code.keras"))
    with pytest.raises(InputError, match="holds code, which is not run unasked"):
        backbones.build(keras_file.Config(path=path), 8, 0)
    allowed = backbones.build(keras_file.Config(path=path, allow_code=True), 8, 0)
    assert allowed.model.output_shape == (None, 192)
    (tmp_path / "junk.keras").write_bytes(b"junk")
    with pytest.raises(InputError, match="must be a Keras model"):
        backbones.build(keras_file.Config(path=str(tmp_path / "junk.keras")), 8, 0)


def test_pretraining_is_repeatable_and_small(tmp_path: Path, run: Run) -> None:
    assert glyph_cnn.WEIGHTS.stat().st_size < 2_000_000
    (tmp_path / "params.yaml").write_text((Path(__file__).parents[2] / "params.yaml").read_text())
    words = ["pretrain.letters=600", "pretrain.epochs=2"]
    for name in ("a", "b"):
        path = f"pretrain.path={tmp_path / name}.weights.h5"
        done = run(tmp_path, sys.executable, "-m", "pipeline", "pretrain", *words, path)
        assert done.returncode == 0, done.stderr
    digests = {file_sha256(tmp_path / f"{name}.weights.h5") for name in ("a", "b")}
    assert len(digests) == 1
