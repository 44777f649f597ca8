"""Model files of Keras 2, as tf_keras writes them, and files that are not Keras models."""

import re
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.networks import backbones, foreign_file
from pipeline.networks.backbones import keras_file

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("other_files")]

WRITER = """
import sys
import numpy as np, tensorflow as tf, tf_keras as keras
L = keras.layers

def mobilenet(**more):
    return keras.applications.MobileNetV2(
        alpha=0.35, include_top=False, weights=None, input_shape=(64, 64, 3), **more
    )

def entry():
    return keras.Input((64, 64, 3))

def teachable():  # as Teachable Machine nests them
    body = keras.Sequential([mobilenet(), L.GlobalAveragePooling2D()])
    top = keras.Sequential([L.Dense(10, "relu", input_shape=(1280,)), L.Dense(3, "softmax")])
    return keras.Sequential([body, top])

def tutorial():  # as TensorFlow's tutorial on transfer learning does it
    x = L.RandomRotation(0.2)(L.RandomFlip("horizontal")(entry_ := entry()))
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    x = mobilenet()(x, training=False)
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D()(x))
    return keras.Model(entry_, L.Dense(1)(x))

def shared():
    entry_ = entry()
    conv = L.SeparableConv2D(3, 3, padding="same", activation="relu")
    x = L.Concatenate()([conv(conv(entry_)), L.DepthwiseConv2D(3, padding="same")(entry_)])
    x = L.BatchNormalization()(L.Conv2DTranspose(4, 3)(x)) * 2.0
    return keras.Model(entry_, L.Dense(4)(L.GlobalMaxPooling2D()(L.SpatialDropout2D(0.1)(x))))

def slashes():
    return keras.applications.MobileNetV3Small(
        input_shape=(64, 64, 3), weights=None, classes=3, minimalistic=True
    )

def code():
    x = L.Lambda(lambda t: t / 255.0)(entry_ := entry())
    return keras.Model(entry_, L.Dense(2)(L.Flatten()(x)))

def sliced():
    entry_ = entry()
    return keras.Model(entry_, L.Dense(2)(L.Flatten()(entry_[:, ::2])))

@keras.utils.register_keras_serializable("mine")
class Scaled(L.Layer):
    def call(self, x):
        return x * 2

def own_layer():
    return keras.Model(entry_ := entry(), L.Dense(2)(L.Flatten()(Scaled()(entry_))))

name, folder = sys.argv[1:]
keras.utils.set_random_seed(0)
model = globals()[name]()
rng = np.random.default_rng(0)
for weights in model.weights:
    if "moving_variance" in weights.name:
        weights.assign(rng.uniform(0.5, 2, weights.shape))
    elif "gamma" not in weights.name and "kernel" not in weights.name:
        weights.assign(rng.normal(0, 0.1, weights.shape))
images = rng.uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
np.save(f"{folder}/images.npy", images)
np.save(f"{folder}/answers.npy", model(images, training=False))
model.save(f"{folder}/net.h5")
try:
    model.save(f"{folder}/net.keras")
except (TypeError, ValueError, NotImplementedError):
    print("no .keras file")
model.save(f"{folder}/saved", save_format="tf")
model.save_weights(f"{folder}/alone.h5")
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> "partial[Path]":
    """Name of a network in WRITER -> the folder with its files."""
    pytest.importorskip("tf_keras")
    folders: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in folders:
            folder = folders[name] = tmp_path_factory.mktemp(name)
            command = [sys.executable, "-c", WRITER, name, str(folder)]
            subprocess.run(command, check=True, capture_output=True)
        return folders[name]

    return partial(write)


@pytest.mark.parametrize("kind", ["h5", "keras"])
@pytest.mark.parametrize("name", ["teachable", "tutorial", "shared", "slashes"])
def test_files_of_keras_2_give_what_keras_2_gave(
    written: "partial[Path]", name: str, kind: str
) -> None:
    path = written(name) / f"net.{kind}"
    assert foreign_file.written_by(path).startswith("2")
    model = foreign_file.load_keras2(path, safe_mode=True)
    expected = np.load(path.parent / "answers.npy")
    actual = np.asarray(model(np.load(path.parent / "images.npy"), training=False))
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def test_features_of_a_teachable_machine_are_the_pooled_ones(written: "partial[Path]") -> None:
    built = backbones.build(keras_file.Config(path=str(written("teachable") / "net.h5")), 64, 0)
    assert built.model.output_shape == (None, 1280)
    assert "below the hidden layers of the head" in built.taken


def test_code_of_keras_2_runs_only_when_asked(written: "partial[Path]") -> None:
    path = str(written("code") / "net.h5")
    with pytest.raises(InputError, match="contains code, which is not run by default"):
        backbones.build(keras_file.Config(path=path), 64, 0)
    allowed = backbones.build(keras_file.Config(path=path, allow_code=True), 64, 0)
    assert allowed.model.output_shape == (None, 64 * 64 * 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sliced", r"the operation tf\.__operators__\.getitem, which is not a layer"),
        ("own_layer", r"mine>Scaled, which is not in Keras, and does not contain its code"),
    ],
)
def test_what_keras_3_cannot_have_is_named(
    written: "partial[Path]", name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        backbones.build(keras_file.Config(path=str(written(name) / "net.h5")), 64, 0)


def test_the_command_for_a_saved_model_makes_a_file_that_loads(
    written: "partial[Path]", tmp_path: Path
) -> None:
    folder = written("tutorial")
    with pytest.raises(InputError, match="is a SavedModel folder: pip install tf_keras") as message:
        backbones.build(keras_file.Config(path=str(folder / "saved")), 64, 0)
    command = re.search(r'python -c "(.*?)" converts', str(message.value))
    assert command
    code = command[1]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    model = foreign_file.load_keras2(tmp_path / "model.h5", safe_mode=True)
    expected = np.load(folder / "answers.npy")
    actual = np.asarray(model(np.load(folder / "images.npy"), training=False))
    assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


def zipped(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")


def made(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("net.pth", partial(zipped, name="archive/data.pkl"), "a PyTorch file"),
        ("net", partial(zipped, name="archive/data.pkl"), "a PyTorch file"),
        ("net.onnx", partial(made, content=b"\x08\x09"), "an ONNX model"),
        ("net.tflite", partial(made, content=b"\x1c\0\0\0TFL3"), "a TensorFlow Lite model"),
        ("frozen.pb", partial(made, content=b"\n\x0f"), "a frozen graph"),
        ("saved_model.pb", partial(made, content=b"\x08"), "part of a SavedModel folder"),
        ("model.json", partial(made, content=b"{}"), "JSON, at most a model's config"),
        ("folder", Path.mkdir, "a folder: name the file inside it"),
        ("absent.keras", lambda path: None, "must be a file, got .*: no such file"),
    ],
)
def test_other_files_are_named(
    name: str, make: partial[None], message: str, tmp_path: Path
) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=message):
        backbones.build(keras_file.Config(path=str(tmp_path / name)), 64, 0)


def test_weights_alone_are_no_model(written: "partial[Path]", tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "net.weights.h5")
    for path in (tmp_path / "net.weights.h5", written("teachable") / "alone.h5"):
        with pytest.raises(InputError, match="is a weights file: build the network"):
            backbones.build(keras_file.Config(path=str(path)), 64, 0)
