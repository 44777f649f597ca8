"""Exports agree with the Keras model in their own runtimes, or are not written."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Run, run_in
from exporting import export
from sklearn.linear_model import LogisticRegression

from pipeline.data.manifest import Manifest
from pipeline.data.tasks import calibration
from pipeline.networks import backbones, heads, model_file
from pipeline.networks.backbones import keras_application

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("export")]

PATHS = {
    "saved_model": "saved_model",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
    "tflite_int8": "model_int8.tflite",
}
Floats = np.ndarray[Any, np.dtype[np.float32]]


def by_saved_model(path: Path, images: Floats) -> Floats:
    entry = keras.Input(images.shape[1:])
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")
    (actual,) = keras.Model(entry, layer(entry)).predict(images, verbose=0).values()
    return actual


def by_onnx(path: Path, images: Floats) -> Floats:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape) == ("images", ["B", *images.shape[1:]])
    assert exit_.name == "probabilities"
    batches = [images[start : start + 7] for start in range(0, len(images), 7)]
    return np.concatenate([session.run(None, {"images": batch})[0] for batch in batches])


def by_tflite(path: Path, images: Floats) -> Floats:
    interpreter = tf.lite.Interpreter(str(path))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(given["index"])


def by_tflite_int8(path: Path, images: Floats) -> Floats:
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    kinds = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert kinds <= {np.uint8, np.int8, np.int32}, "an operation in floats is left"
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert (taken["dtype"], given["dtype"]) == (np.uint8, np.uint8)
    assert [*taken["shape_signature"]] == [1, *images.shape[1:]]
    assert taken["quantization"] == (1.0, 0), "an image's bytes can go in as they are"
    rows = []
    for image in images.astype(np.uint8):
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    scale, zero = given["quantization"]
    return ((np.stack(rows).astype(np.float64) - zero) * scale).astype(np.float32)


READERS: dict[str, Callable[[Path, Floats], Floats]] = {
    "saved_model": by_saved_model,
    "onnx": by_onnx,
    "tflite": by_tflite,
    "tflite_int8": by_tflite_int8,
}


def check_all(out: Path, model: Path, prepared: Path, most: int = 500) -> dict[str, Any]:
    """Compare agreement.json with the exported networks, run as their users would."""
    message = json.loads((out / "agreement.json").read_text())["networks"]
    assert set(message) == {"keras", *PATHS}
    data = Manifest(prepared)
    rows = data.indices("test")
    if len(rows) > most:
        rows = rows[np.round(np.linspace(0, len(rows) - 1, most)).astype(int)]
    images, labels = data.images[rows].astype(np.float32), data.targets[rows]
    expected = keras.saving.load_model(model).predict(images, verbose=0)
    assert message["keras"]["accuracy"] == np.mean(expected.argmax(1) == labels)
    for name, read in READERS.items():
        actual, row = read(out / PATHS[name], images), message[name]
        assert actual.shape == expected.shape
        assert row["accuracy"] == np.mean(actual.argmax(1) == labels), name
        assert row["same_answer"] == np.mean(actual.argmax(1) == expected.argmax(1)), name
        difference = np.abs(actual - expected)
        assert row["max_difference"] == pytest.approx(difference.max(), abs=2e-5), name
        assert row["mean_difference"] == pytest.approx(difference.mean(), abs=2e-6), name
        assert row["max_difference"] < (1 if name == "tflite_int8" else 1e-4), name
    assert message["tflite_int8"]["max_difference"] > 1e-4, "it is quantised"
    return message


@pytest.fixture(scope="module")
def exported(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("export") / "deep" / "exported"
    done = run_in(repository, sys.executable, "-m", "pipeline", "export", "--out", str(out))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out, done.stdout


def test_every_format_does_what_keras_does(repository: Path, exported: tuple[Path, str]) -> None:
    out, printed = exported
    message = check_all(
        out, repository / "outputs/finetune/model.keras", repository / "outputs/prepare"
    )
    lines = {line.split()[0]: line for line in printed.splitlines()}
    for name, row in message.items():
        assert (
            f"accuracy {row['accuracy']:.4f}  same answer {row['same_answer']:.4f}" in lines[name]
        )
        assert f"max {row['max_difference']:.1e} mean {row['mean_difference']:.1e}" in lines[name]
        assert f"{row['size_mb']:.2f} MB" in lines[name]
        assert lines[name].index("accuracy") == lines["keras"].index("accuracy"), "aligned"
    assert message["tflite_int8"]["size_mb"] < message["tflite"]["size_mb"] / 3
    assert message["saved_model"]["size_mb"] < 1.3 * message["tflite"]["size_mb"], (
        "each weight once"
    )
    card = json.loads((out / "classifier.json").read_text())
    assert (card["classes"], card["image_size"], card["fit"]) == (list("0123456789"), 8, "crop")
    assert {path.name for path in out.iterdir()} == {
        *PATHS.values(),
        "classifier.json",
        "agreement.json",
    }


def test_another_process_writes_the_same_bytes(
    repository: Path, exported: tuple[Path, str], tmp_path: Path, capfd: Any
) -> None:
    names = ("onnx", "tflite", "tflite_int8")
    code, _, error = export(repository, capfd, *names, "--out", str(tmp_path))
    assert (code, error) == (0, "")
    for name in names:
        path = PATHS[name]
        assert (tmp_path / path).read_bytes() == (exported[0] / path).read_bytes(), name
    assert not (tmp_path / "saved_model").exists(), "it was not named"


def test_mobilenet_v2_with_a_temperature(
    shared: Path, project: Path, run: Run, tmp_path: Path, capfd: Any
) -> None:
    settings = (f"data.path={shared / 'data' / 'hymenoptera.tar'}", "prepare.image_size=96")
    prepare = ("prepare", "data.use=hymenoptera", "tracking.enabled=false", *settings)
    counts = ("prepare.train_per_class=null", "prepare.val_per_class=null")
    done = run(project, sys.executable, "-m", "pipeline", *prepare, *counts)
    assert done.returncode == 0, done.stderr
    data = Manifest(project / "outputs" / "prepare")
    weights = shared / "weights" / "mobilenet_v2_0.35_224_no_top.weights.h5"
    config = keras_application.Config(
        name="MobileNetV2", weights=str(weights), options={"alpha": 0.35}
    )
    body = backbones.build(config, 96, 0).model
    train = data.indices("train")
    features = body.predict(data.images[train].astype(np.float32), verbose=0)
    fitted = LogisticRegression(C=0.01).fit(features, data.targets[train])
    head = heads.build(heads.Config(), features.shape[1], 2)
    both = np.array([[-0.5, 0.5]])  # the two classes' logits
    head.get_layer("head_logits").set_weights([fitted.coef_.T @ both, (fitted.intercept_ @ both)])
    model = heads.join(body, calibration.scaled(head, 1.7), "classifier")
    path = tmp_path / "model.keras"
    model_file.save(model, path, model_file.Card(data.classes, 96, data.decoding, 32, 2))
    assert any("batch_normalization" in type(layer).__module__ for layer in model.layers)
    out = tmp_path / "out"
    words = ("--model", str(path), "--out", str(out), "--min-agreement", "0.9")
    code, _, error = export(project, capfd, *words)
    assert (code, error) == (0, "")
    message = check_all(out, path, project / "outputs" / "prepare")
    assert message["keras"]["accuracy"] > 0.75, "the weights are real"
    assert message["tflite_int8"]["accuracy"] > 0.7


def test_constants_and_grouped_convolutions_of_other_backbones(
    repository: Path, tmp_path: Path, capfd: Any
) -> None:
    """EfficientNetV2 and ConvNeXt, for which Keras' own ONNX export fails."""
    entry = keras.Input((8, 8, 3), name="images")
    x = keras.layers.Normalization(mean=[120, 110, 100], variance=[3000, 3100, 3200])(entry)
    x = keras.layers.Conv2D(6, 3, padding="same", groups=3)(x)
    x = keras.layers.Flatten()(keras.layers.Activation("gelu")(x))
    model = keras.Model(entry, keras.layers.Dense(10, activation="softmax")(x))
    _, card = model_file.load(repository / "outputs/finetune/model.keras")
    model_file.save(model, tmp_path / "m.keras", card)
    out = tmp_path / "out"
    words = ("--model", str(tmp_path / "m.keras"), "--out", str(out), "--min-agreement", "0.9")
    code, _, error = export(repository, capfd, *words)
    assert (code, error) == (0, "")
    check_all(out, tmp_path / "m.keras", repository / "outputs/prepare")
