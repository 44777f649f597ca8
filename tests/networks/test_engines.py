"""Engines agree with Keras to 1e-5, and an image's outputs depend on that image only."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.data.decoding import Decoding
from pipeline.data.tasks.classification import TASK
from pipeline.errors import InputError
from pipeline.features import cuts
from pipeline.networks import backbones, conversions, engines, frozen_graph, model_file
from pipeline.networks.backbones import glyph_cnn, keras_application, keras_file
from pipeline.networks.engines import Config, Engine, Precision
from pipeline.networks.keras_forward import KerasForward
from pipeline.networks.model_file import Card
from pipeline.networks.trust import reference

pytestmark = pytest.mark.slow

OTHERS = [Engine.openvino]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions are kept below the working folder."""
    monkeypatch.chdir(tmp_path)


def images(size: int, count: int = 40) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, size // 4, size // 4, 3))
    return coarse.astype(np.uint8).repeat(4, 1).repeat(4, 2)


def attention() -> keras.Model:
    """A network with newer operations: patches, attention, GELU, LayerNormalization."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(24, 4, 4)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Reshape((16, 24))(x)
    y = keras.layers.LayerNormalization()(x)
    x = keras.layers.Add()([x, keras.layers.MultiHeadAttention(2, 12)(y, y)])
    x = keras.layers.Dense(24, activation="gelu")(keras.layers.Dropout(0.5)(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x), name="attention")


def forward(model: keras.Model, engine: Engine, batch: np.ndarray, **change: Any) -> Any:
    settings = {"batch_size": 8, "threads": 2, "images": batch, **change}
    return engines.forward(model, Config(engine), **settings)


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("engine", OTHERS)
def test_each_cut_of_a_real_network_agrees_with_keras(engine: Engine, shared: Path) -> None:
    weights = shared / "weights/mobilenet_v2_0.35_224_no_top.weights.h5"
    config = keras_application.Config(
        name="MobileNetV2", weights=str(weights), options={"alpha": 0.35}
    )
    model = backbones.build(config, 96, 0).model
    batch = images(96)
    for at in ("block_3_expand", "block_13_expand", "out_relu", cuts.cut_points(model)[-1]):
        lower, _ = cuts.split(model, at)
        actual = forward(lower, engine, batch).all(batch)
        assert difference(actual, KerasForward(lower, 8).all(batch)) < 1e-5, at


@pytest.mark.parametrize("engine", OTHERS)
@pytest.mark.parametrize("kind", ["glyph_cnn", "efficientnet_lite0", "attention"])
def test_places_batches_and_threads_change_no_byte(
    engine: Engine, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "attention":
        model, size = attention(), 16
    elif kind == "glyph_cnn":
        model, size = backbones.build(glyph_cnn.Config(), 8, 0).model, 8
    else:
        path = request.getfixturevalue("shared") / "weights/efficientnet_lite0.keras"
        model, size = backbones.build(keras_file.Config(path=str(path)), 64, 0).model, 64
    batch = images(size)
    outputs = forward(model, engine, batch).all(batch)
    assert difference(outputs, KerasForward(model, 8).all(batch)) < 1e-5
    places = np.random.default_rng(1).permutation(len(batch))
    other = forward(model, engine, batch, batch_size=5, threads=3)
    assert (other.all(batch, places) == outputs[places]).all()
    assert (other(batch[7:8]) == outputs[7]).all()
    assert other.all(batch[:0]).shape == (0, *outputs.shape[1:])


@pytest.mark.parametrize("engine", OTHERS)
def test_the_same_network_is_converted_to_the_same_bytes(engine: Engine) -> None:
    batch = images(16)
    first = engines.convert(attention(), Config(engine), threads=2, images=batch)
    shutil.rmtree(".work")
    again = engines.convert(attention(), Config(engine), threads=1, images=batch)  # other names
    assert first is not None
    assert first == again


def with_layer(function: Any) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Lambda(function, output_shape=(8, 8, 3))(inputs)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="odd")


def in_python(x: Any) -> Any:
    return tf.reshape(tf.py_function(lambda rows: rows * 2, [x], tf.float32), (-1, 8, 8, 3))


@pytest.mark.parametrize("engine", OTHERS)
def test_keras_computes_what_an_engine_cannot(
    engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    model, batch = with_layer(in_python), images(8)
    actual = forward(model, engine, batch)
    assert isinstance(actual, KerasForward)
    assert (actual.all(batch) == KerasForward(model, 8).all(batch)).all()
    message = capfd.readouterr()
    assert message.out.startswith(f"odd runs on Keras, because {engine} cannot: ")
    assert message.out.count("\n") == 1
    assert message.err == ""


@pytest.mark.parametrize("engine", OTHERS)
def test_a_conversion_that_disagrees_is_refused_with_the_numbers(
    engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, model = images(16), attention()
    with monkeypatch.context() as stricter:
        stricter.setitem(engines._TOLERANCE, Precision.float32, 0.0)  # less than rounding
        assert isinstance(forward(model, engine, batch), KerasForward)
    assert "the limit is 0" in capsys.readouterr().out
    assert not isinstance(forward(model, engine, batch), KerasForward)


def test_a_network_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model, config = images(16), attention(), Config(Engine.openvino)
    first = engines.convert(model, config, threads=2, images=batch)
    expected = forward(model, Engine.openvino, batch).all(batch)
    freeze = frozen_graph.freeze
    frozen: list[keras.Model] = []

    def counted(model: keras.Model, batch_size: int | None = None) -> Any:
        frozen.append(model)
        return freeze(model, batch_size)

    monkeypatch.setattr(frozen_graph, "freeze", counted)
    assert engines.convert(model, config, threads=1, images=batch) == first
    assert (forward(model, Engine.openvino, batch).all(batch) == expected).all()
    assert not frozen
    weight = model.trainable_variables[0]
    weight.assign(weight.numpy() * np.float32(1.0001))
    other = engines.convert(model, config, threads=2, images=batch)
    assert len(frozen) == 1, "other weights are another network"
    assert other != first


def test_only_the_last_conversions_are_kept() -> None:
    for number in range(25):
        conversions.keep(f"{number:032}", {"network": b"%d" % number})
        folder = Path(".work/converted") / f"{number:032}"
        os.utime(folder, (number, number))
    assert conversions.read(f"{3:032}") is None
    assert conversions.read(f"{24:032}") == {"network": b"24"}
    assert len(list(Path(".work/converted").glob("0*"))) == 20
    assert not list(Path(".work/converted").glob(f".*{3:032}*"))


def test_the_amount_of_work_chooses_the_engine() -> None:
    few, many = engines.CONVERSION / 2, engines.CONVERSION * 2
    assert Config().resolved(few).engine == Engine.keras
    assert Config().resolved(many).engine == Engine.openvino
    assert Config().resolved().engine == Engine.openvino, "a finished model is used for long"
    assert Config(precision=Precision.bfloat16).resolved(few).engine == Engine.openvino
    for engine in (Engine.keras, Engine.openvino):
        assert Config(engine).resolved(few).engine == Config(engine).resolved(many).engine == engine
    assert engines.described(Config()) != engines.described(Config(Engine.openvino))


def test_bfloat16_is_coarser_and_close() -> None:
    model, batch = attention(), images(16)
    config = Config(Engine.openvino, Precision.bfloat16)
    try:
        actual = engines.forward(model, config, batch_size=8, threads=2, images=batch).all(batch)
    except InputError as error:
        assert "forward.precision=bfloat16 is not supported by" in str(error)  # noqa: PT017
        pytest.skip("this processor has no bfloat16")
    assert 1e-5 < difference(actual, KerasForward(model, 8).all(batch)) < 0.1
    assert engines.described(config)["products"] == "bfloat16"


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(InputError, match=r"forward.precision=bfloat16 needs forward.engine=openvi"):
        Config(Engine.keras, Precision.bfloat16).check("forward")


def test_an_engine_that_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['openvino'] = None; from pipeline.networks import engines; "
        "engines.described(engines.Config())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs OpenVINO: pip install openvino, or set forward" in done.stderr


ALONE = """
import sys
from pathlib import Path
import numpy as np
from pipeline.serving.classifier import Classifier
classifier = Classifier(Path(sys.argv[1]))
np.save(sys.argv[2], classifier.probabilities(np.load(sys.argv[3])))
unwanted = ("tensorflow", "keras", "openvino_telemetry")
assert not [name for name in sys.modules if name.split(".")[0] in unwanted]
"""


@pytest.mark.parametrize("engine", OTHERS)
def test_a_model_file_predicts_without_tensorflow(engine: Engine, tmp_path: Path) -> None:
    batch, entry = images(8), keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(entry))
    model = keras.Model(entry, keras.layers.Dense(2, activation="softmax")(x))
    converted = engines.convert(model, Config(engine), threads=2, images=batch)
    assert converted is not None
    path, card = tmp_path / "m.keras", Card(["a", "b"], 8, Decoding(), 32, 2)
    some = np.random.default_rng(0).random((20, 2 + 8 * 8 * 3), np.float32)
    reference_data = reference.make(TASK, (some, some, some), (np.zeros(20, np.int64),) * 2, 2, {})
    model_file.save(model, path, card, converted, reference_data)
    assert model_file.read_card(path).engine == {
        "engine": str(engine),
        "version": converted.version,
        "precision": "float32",
    }
    np.save(tmp_path / "shown.npy", batch)
    files = [str(tmp_path / name) for name in ("m.keras", "found.npy", "shown.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True)
    actual = np.load(tmp_path / "found.npy")
    assert difference(actual, keras.saving.load_model(path).predict(batch, verbose=0)) < 1e-5
    bytes_of_one = path.read_bytes()
    model_file.save(model, path, card, converted, reference_data)
    assert path.read_bytes() == bytes_of_one
