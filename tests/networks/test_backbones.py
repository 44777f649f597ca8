"""Backbones: preprocessing of the network, models of the user, the right weights."""

import sys
import tarfile
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
    actual = application(name).model(x, training=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


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
    message = str(caught.value)
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in message
    assert "set backbone.weights to the path" in message


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
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.float32)
    rgb = np.repeat(images, 3, axis=-1)
    features = keras.Model(model.inputs, model.get_layer("dense3").output)
    expected = features.predict(images.reshape(3, 784) / 255, verbose=0)
    np.testing.assert_allclose(body.predict(rgb, verbose=0), expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=r"takes 784: set prepare\.image_size=28"):
        backbones.build(keras_file.Config(path=str(path)), 32, 0)


def test_a_model_that_takes_images_and_a_named_feature(tmp_path: Path) -> None:
    entry = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(entry)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(entry, keras.layers.Dense(2, name="out")(x))
    path = str(saved(model, tmp_path / "net.keras"))
    assert backbones.build(keras_file.Config(path=path), 20, 0).model.output_shape == (None, 4)
    by_conv = backbones.build(keras_file.Config(path=path, features="conv"), 20, 0)
    assert by_conv.model.layers[-1].name == "features"
    with pytest.raises(InputError, match=r"got 'con'; did you mean conv"):
        backbones.build(keras_file.Config(path=path, features="con"), 20, 0)


def small(head: list[keras.layers.Layer], **settings: object) -> keras.Model:
    """A network behind a Rescaling, with or without a head."""
    entry = keras.Input((8, 8, 3))
    inner = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, name="conv")(inner)
    x = keras.layers.BatchNormalization(name="norm")(x)
    network = keras.Model(inner, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="body")
    x = network(keras.layers.Rescaling(1 / 255.0)(entry))
    for layer in head:
        x = layer(x)
    return keras.Model(entry, x, **settings)


HEADS = {
    "none": (lambda layers: [], 6),
    "logits": (lambda layers: [layers.Dense(3)], 6),
    "softmax apart": (lambda layers: [layers.Dense(3), layers.Activation("softmax")], 6),
    "dropout between": (lambda layers: [layers.Dropout(0.5), layers.Dense(3)], 6),
    "normalized": (
        lambda layers: [
            layers.Dense(3, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("softmax"),
        ],
        6,
    ),
    "hidden layer": (lambda layers: [layers.Dense(5, activation="relu"), layers.Dense(3)], 6),
    "an embedding": (lambda layers: [layers.Dense(5, activation="relu")], 5),
    "a temperature": (lambda layers: [layers.Dense(3), layers.Rescaling(0.5), layers.Softmax()], 6),
}


@pytest.mark.parametrize("name", HEADS)
def test_features_are_found_by_structure(name: str, tmp_path: Path) -> None:
    head, count = HEADS[name]
    path = saved(small(head(keras.layers)), tmp_path / "net.keras")
    built = backbones.build(keras_file.Config(path=str(path)), 8, 0)
    assert built.model.output_shape == (None, count)
    assert ("it has no head" in built.taken) == (name in ("none", "an embedding"))


def test_layers_of_a_model_inside_can_be_named(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), small([]), keras.layers.Dense(2)])
    path = str(saved(model, tmp_path / "net.keras"))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    plain = backbones.build(keras_file.Config(path=path), 8, 0).model.predict(images, verbose=0)
    expected = model.layers[0].predict(images, verbose=0)
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-6)
    named = backbones.build(keras_file.Config(path=path, features="norm"), 8, 0).model
    assert named.output_shape == (None, 6)


def test_what_the_pipeline_made_is_a_backbone_again(repository: Path) -> None:
    path = repository / "outputs" / "finetune" / "model.keras"
    built = backbones.build(keras_file.Config(path=str(path)), 8, 0)
    assert built.model.output_shape == (None, 2048)
    assert "head_logits" in built.taken


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_precisions_become_float32(policy: str, tmp_path: Path) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        path = str(saved(small([keras.layers.Dense(3)]), tmp_path / "net.keras"))
    finally:
        keras.config.set_dtype_policy("float32")
    model = backbones.build(keras_file.Config(path=path), 8, 0).model
    assert {str(layer.compute_dtype) for layer in model.layers} == {"float32"}
    actual = model.predict(np.ones((2, 8, 8, 3), np.float32), verbose=0)
    assert actual.dtype == np.float32


def test_what_keras_2_wrote(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "data" / "field_cases.tar") as archive:
        archive.extract("field_cases/15_models/v_keras2.h5", tmp_path, filter="data")
    path = tmp_path / "field_cases" / "15_models" / "v_keras2.h5"
    model = backbones.build(keras_file.Config(path=str(path)), 64, 0).model
    assert model.output_shape == (None, 1280)
    total = sum(float(np.abs(weights).sum()) for weights in model.get_weights())
    # What tf_keras 2 itself says of all weights, less those of the head.
    assert 35_000 < total < 35_380


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 4), "images have 3 channels"),
        ((3, 8, 8), "channels first: save it with data_format=channels_last"),
        ((8, 16, 3), "images are square"),
        ((5, 8, 8, 3), "use a network for single images"),
        ((16, 16, 3), "set prepare.image_size=16"),
    ],
)
def test_why_images_do_not_fit(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    entry = keras.Input(shape)
    model = keras.Model(entry, keras.layers.Dense(2)(keras.layers.Flatten()(entry)))
    path = saved(model, tmp_path / "net.keras")
    with pytest.raises(InputError, match=message):
        backbones.build(keras_file.Config(path=str(path)), 8, 0)


def test_several_outputs_and_inputs(tmp_path: Path) -> None:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(entry)
    model = keras.Model(entry, [keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)])
    with pytest.raises(InputError, match="must have one output, got 2"):
        backbones.build(keras_file.Config(path=str(saved(model, tmp_path / "net.keras"))), 8, 0)


def test_code_in_a_file_runs_only_when_asked(tmp_path: Path) -> None:
    entry = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(lambda t: t / 255.0)(entry)
    x = keras.layers.Flatten(name="flat")(x)
    path = str(saved(keras.Model(entry, keras.layers.Dense(2)(x)), tmp_path / "code.keras"))
    with pytest.raises(InputError, match="contains code, which is not run by default"):
        backbones.build(keras_file.Config(path=path), 8, 0)
    allowed = backbones.build(keras_file.Config(path=path, allow_code=True), 8, 0)
    assert allowed.model.output_shape == (None, 192)
    (tmp_path / "junk.keras").write_bytes(b"junk")
    with pytest.raises(InputError, match="must be a Keras model"):
        backbones.build(keras_file.Config(path=str(tmp_path / "junk.keras")), 8, 0)


@pytest.mark.slow
def test_pretraining_is_repeatable_and_small(tmp_path: Path, run: Run) -> None:
    assert glyph_cnn.WEIGHTS.stat().st_size < 2_000_000
    for name in ("a", "b"):
        words = ["600", "2", str(tmp_path / f"{name}.weights.h5")]
        done = run(tmp_path, sys.executable, "-m", "benchmarks.pretrain", *words, forked=False)
        assert done.returncode == 0, done.stderr
    digests = {file_sha256(tmp_path / f"{name}.weights.h5") for name in ("a", "b")}
    assert len(digests) == 1
