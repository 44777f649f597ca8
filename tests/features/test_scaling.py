"""The scaling of a network's inputs, found on training images if nothing specifies it."""

import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import frozen_part

from pipeline.data.image_file import decode
from pipeline.errors import InputError
from pipeline.features import scaling
from pipeline.networks import backbones, features_of
from pipeline.networks import scaling as named
from pipeline.networks.backbones.keras_file import Config
from pipeline.settings import check

SIZE = 16


def saved(path: Path, *layers: keras.layers.Layer) -> Config:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers])
    model.save(path)
    return Config(use="keras_file", path=str(path))


def head() -> list[keras.layers.Layer]:
    return [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]


def stripes(count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Weak stripes, across or along, on noise: (N, H, W, 3) and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pattern = 30 * np.sin(np.arange(SIZE) * 1.5)[:, None] * np.ones((SIZE, SIZE))
    images = rng.normal(128, 30, (count, SIZE, SIZE, 3))
    images += np.where(labels[:, None, None] == 1, pattern.T, pattern)[..., None]
    return images.clip(0, 255).astype(np.uint8), labels


@pytest.mark.slow
def test_a_real_network_that_was_saved_without_its_scaling(shared: Path, tmp_path: Path) -> None:
    for name in ("field_cases_2", "hymenoptera"):
        with tarfile.open(shared / "data" / f"{name}.tar") as archive:
            archive.extractall(tmp_path, filter="data")
    path = str(tmp_path / "field_cases_2" / "02_no_scaling" / "mine.keras")
    files = [sorted((tmp_path / "hymenoptera/train" / n).glob("*.jpg")) for n in ("ants", "bees")]
    images = np.stack([decode(f.read_bytes(), 96).pixels for own in files for f in own[:60]])
    labels = np.repeat([0, 1], 60)

    def build(name: str) -> backbones.Backbone:
        return backbones.build(Config(use="keras_file", path=path, scale=name), 96, 0)

    names, _ = backbones.scalings(Config(use="keras_file", path=path), 96)
    chosen = scaling.choose(build, names, images, labels, seed=0, threads=2)
    assert chosen.value in ("symmetric", "imagenet"), "MobileNetV2 was trained on [-1, 1]"


def test_the_scaling_that_a_network_saturates_without_is_found(tmp_path: Path) -> None:
    """At [0, 255], all its neurons are saturated."""
    positive = keras.initializers.RandomUniform(0.05, 0.2)
    layer = keras.layers.Conv2D(16, 3, activation="tanh", kernel_initializer=positive)
    config = saved(tmp_path / "m.keras", layer, *head())
    names, reason = backbones.scalings(config, SIZE)
    assert (names, reason) == (tuple(named.NAMED), "")

    def build(name: str) -> backbones.Backbone:
        return backbones.build(Config(use="keras_file", path=config.path, scale=name), SIZE, 0)

    images, labels = stripes()
    chosen = scaling.choose(build, names, images, labels, seed=0, threads=2)
    assert chosen.value != "none"
    assert "best in cross-validation on 120 training images" in chosen.reason
    again = scaling.choose(build, names, images, labels, seed=0, threads=2)
    assert again == chosen


@pytest.mark.parametrize(
    "layer", [keras.layers.Rescaling(1 / 255), keras.layers.Normalization(mean=100, variance=9)]
)
def test_a_model_that_scales_its_input_is_left_alone(
    tmp_path: Path, layer: keras.layers.Layer
) -> None:
    config = saved(tmp_path / "m.keras", layer, keras.layers.Conv2D(4, 3), *head())
    names, reason = backbones.scalings(config, SIZE)
    assert names == ()
    assert layer.name in reason


def test_one_inside_a_nested_model_and_one_of_operations(tmp_path: Path) -> None:
    entry = keras.Input((SIZE, SIZE, 3))
    inner = keras.Sequential([keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3)])
    nested = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(inner(entry)))
    nested.save(tmp_path / "nested.keras")
    by_hand = keras.Model(
        entry, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(entry / 127.5 - 1))
    )
    by_hand.save(tmp_path / "by_hand.keras")
    for name in ("nested", "by_hand"):
        config = Config(use="keras_file", path=str(tmp_path / f"{name}.keras"))
        assert backbones.scalings(config, SIZE)[0] == (), name


@pytest.mark.parametrize("name", list(named.NAMED))
def test_each_name_is_what_it_says(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / "m.keras", keras.layers.Flatten(name="all")).path
    config = Config(use="keras_file", path=path, scale=name, features="all")
    body = backbones.build(config, SIZE, 0).model
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.float32)
    expected = {
        "none": image,
        "unit": image / 255,
        "symmetric": image / 127.5 - 1,
        "imagenet": (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
        "caffe": image[..., ::-1] - [103.939, 116.779, 123.68],
    }[name]
    np.testing.assert_allclose(body(image).numpy(), expected.reshape(1, -1), rtol=1e-4, atol=1e-4)


def test_grey_networks_are_not_offered_colours(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Conv2D(4, 3), *head()])
    model.save(tmp_path / "grey.keras")
    config = Config(use="keras_file", path=str(tmp_path / "grey.keras"))
    assert backbones.scalings(config, 28) == (named.GREY, "")


@pytest.mark.parametrize(
    ("scale", "offset", "message"),
    [("ImageNet", 0.0, "must be a number or one of auto, none"), ("unit", 1.0, "needs a num")],
)
def test_scalings_that_make_no_sense(scale: str, offset: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(Config(use="keras_file", path="x", scale=scale, offset=offset), "backbone")


def test_what_extraction_settled_is_used_later(tmp_path: Path) -> None:
    frozen = frozen_part(Config(use="keras_file", path="x"))
    assert scaling.as_extracted(frozen, tmp_path) is frozen
    (tmp_path / "derived.json").write_text(
        '{"backbone.scale": {"value": "unit", "reason": "tried"}}'
    )
    assert scaling.as_extracted(frozen, tmp_path).backbone.scale == "unit"


@pytest.mark.parametrize("channels", [1, 3])
def test_an_autoencoder_names_its_code(tmp_path: Path, channels: int) -> None:
    config = saved(
        tmp_path / "auto.keras",
        keras.layers.Conv2D(8, 3, strides=2, padding="same", name="first"),
        keras.layers.Conv2D(4, 3, strides=2, padding="same", name="code"),
        keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
        keras.layers.Conv2DTranspose(channels, 3, strides=2, padding="same", activation="sigmoid"),
    )
    with pytest.raises(InputError, match=r"returns an image .*, possibly code"):
        backbones.build(config, SIZE, 0)
    named_one = Config(use="keras_file", path=config.path, features="code", scale="unit")
    assert backbones.build(named_one, SIZE, 0).model.output_shape == (None, 4)


def test_a_flat_autoencoder_is_one_too(tmp_path: Path) -> None:
    config = saved(
        tmp_path / "flat.keras",
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="relu", name="code"),
        keras.layers.Dense(SIZE * SIZE * 3, activation="sigmoid"),
    )
    with pytest.raises(InputError, match="possibly code"):
        backbones.build(config, SIZE, 0)


@pytest.mark.parametrize("activation", ["tanh", "hard_sigmoid", "softsign", "softmax", "linear"])
def test_bounded_activations_are_heads(activation: str) -> None:
    entry = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Conv2D(8, 3)(entry))
    model = keras.Model(entry, keras.layers.Dense(3, activation=activation, name="top")(x))
    assert features_of.find(model).why == "the input of the head top"
