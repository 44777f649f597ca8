"""Exports do what the Keras model does, in the runtimes they are for, or are not put in place."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Run, run_in
from sklearn.linear_model import LogisticRegression

from pipeline.__main__ import main
from pipeline.data.decoding import Decoding, Fit
from pipeline.data.manifest import Manifest
from pipeline.networks import backbones, heads, model_file
from pipeline.networks.backbones import keras_application
from pipeline.storage.digests import dvc_md5
from pipeline.training import calibration

PATHS = {
    "saved_model": "saved_model",
    "onnx": "model.onnx",
    "tflite": "model.tflite",
    "tflite_int8": "model_int8.tflite",
}
Floats = np.ndarray[Any, np.dtype[np.float32]]


def by_saved_model(path: Path, pictures: Floats) -> Floats:
    entry = keras.Input(pictures.shape[1:])
    layer = keras.layers.TFSMLayer(str(path), call_endpoint="serving_default")
    (found,) = keras.Model(entry, layer(entry)).predict(pictures, verbose=0).values()
    return found


def by_onnx(path: Path, pictures: Floats) -> Floats:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape) == ("pictures", ["B", *pictures.shape[1:]])
    assert exit_.name == "probabilities"
    batches = [pictures[start : start + 7] for start in range(0, len(pictures), 7)]
    return np.concatenate([session.run(None, {"pictures": batch})[0] for batch in batches])


def by_tflite(path: Path, pictures: Floats) -> Floats:
    interpreter = tf.lite.Interpreter(str(path))
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(taken["index"], pictures.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], pictures)
    interpreter.invoke()
    return interpreter.get_tensor(given["index"])


def by_tflite_int8(path: Path, pictures: Floats) -> Floats:
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    kinds = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert kinds <= {np.uint8, np.int8, np.int32}, "an operation in floats is left"
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert (taken["dtype"], given["dtype"]) == (np.uint8, np.uint8)
    assert [*taken["shape_signature"]] == [1, *pictures.shape[1:]]
    assert taken["quantization"] == (1.0, 0), "a picture's bytes can go in as they are"
    rows = []
    for picture in pictures.astype(np.uint8):
        interpreter.set_tensor(taken["index"], picture[None])
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
    """Compare what is told with what the networks say, each asked as its users do."""
    told = json.loads((out / "agreement.json").read_text())["networks"]
    assert set(told) == {"keras", *PATHS}
    data = Manifest(prepared)
    rows = data.indices("test")
    if len(rows) > most:
        rows = rows[np.round(np.linspace(0, len(rows) - 1, most)).astype(int)]
    pictures, labels = data.images[rows].astype(np.float32), data.labels[rows]
    expected = keras.saving.load_model(model).predict(pictures, verbose=0)
    assert told["keras"]["accuracy"] == np.mean(expected.argmax(1) == labels)
    for name, read in READERS.items():
        found, row = read(out / PATHS[name], pictures), told[name]
        assert found.shape == expected.shape
        assert row["accuracy"] == np.mean(found.argmax(1) == labels), name
        assert row["same_class"] == np.mean(found.argmax(1) == expected.argmax(1)), name
        difference = np.abs(found - expected)
        assert row["max_difference"] == pytest.approx(difference.max(), abs=2e-5), name
        assert row["mean_difference"] == pytest.approx(difference.mean(), abs=2e-6), name
        assert row["max_difference"] < (1 if name == "tflite_int8" else 1e-4), name
    assert told["tflite_int8"]["max_difference"] > 1e-4, "it is quantised"
    return told


def export(folder: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command in this process, in a folder that has outputs/prepare."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        code = main(["export", *words])
    finally:
        os.chdir(before)
    return code, *capfd.readouterr()


def change(repository: Path, path: Path, **card: Any) -> tuple[keras.Model, Callable[[], Path]]:
    """The repository's classifier, and what writes it to `path`, with another card or not."""
    model, old = model_file.load(repository / "outputs/finetune/model.keras")

    def save() -> Path:
        model_file.save(model, path, model_file.Card(**{**vars(old), **card}))
        return path

    return model, save


@pytest.fixture(scope="module")
def exported(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("export") / "deep" / "exported"
    done = run_in(repository, sys.executable, "-m", "pipeline", "export", "--out", str(out))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out, done.stdout


def test_every_format_does_what_keras_does(repository: Path, exported: tuple[Path, str]) -> None:
    out, printed = exported
    told = check_all(
        out, repository / "outputs/finetune/model.keras", repository / "outputs/prepare"
    )
    lines = {line.split()[0]: line for line in printed.splitlines()}
    for name, row in told.items():
        assert f"accuracy {row['accuracy']:.4f}  same class {row['same_class']:.4f}" in lines[name]
        assert f"max {row['max_difference']:.1e} mean {row['mean_difference']:.1e}" in lines[name]
        assert f"{row['size_mb']:.2f} MB" in lines[name]
        assert lines[name].index("accuracy") == lines["keras"].index("accuracy"), "aligned"
    assert told["tflite_int8"]["size_mb"] < told["tflite"]["size_mb"] / 3
    assert told["saved_model"]["size_mb"] < 1.3 * told["tflite"]["size_mb"], "each weight once"
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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("onnx", "coreml"), "the format must be one of saved_model, onnx, tflite, tflite_int8"),
        (("--model", "no.keras"), "must be a .keras file, got no.keras: no such file"),
        (("--min-agreement", "95"), "--min-agreement must be between 0 and 1, got 95.0"),
    ],
)
def test_bad_words(repository: Path, capfd: Any, words: tuple[str, ...], told: str) -> None:
    code, printed, error = export(repository, capfd, *words)
    assert (code, printed, error.count("\n")) == (1, "", 1)
    assert error.startswith("error: ")
    assert told in error
    assert not (repository / "exported").exists()


def test_pictures_that_are_not_the_models(repository: Path, tmp_path: Path, capfd: Any) -> None:
    _, save = change(
        repository, tmp_path / "model.keras", image_size=16, decoding=Decoding(Fit.pad)
    )
    code, _, error = export(repository, capfd, "--model", str(save()))
    assert (code, error.count("\n")) == (1, 1)
    assert "must be those of the model, 16 px, pad, 10 classes (0, 1, 2 ...), got 8 px" in error
    code, _, error = export(tmp_path, capfd, "--model", str(tmp_path / "model.keras"))
    assert (code, error.count("\n")) == (1, 1)
    assert "outputs/prepare holds no manifest.csv: run the prepare stage first" in error


def test_a_missing_library(repository: Path, run: Run, tmp_path: Path) -> None:
    def without(*words: str) -> Any:
        code = (
            "import sys; sys.modules['onnxruntime'] = None; from pipeline.__main__ import main; "
            f"sys.exit(main({['export', *words, '--out', str(tmp_path / 'out')]}))"
        )
        return run(repository, sys.executable, "-c", code)

    remedy = "onnxruntime, not installed: pip install onnx onnxruntime tf2onnx"
    done = without("onnx", "tflite")
    assert (done.returncode, done.stderr) == (1, f"error: onnx needs {remedy}\n")
    assert not (tmp_path / "out").exists()
    done = without()
    assert (done.returncode, done.stderr) == (0, "")
    assert f"onnx         skipped, it needs {remedy}\n" in done.stdout
    assert (tmp_path / "out" / "model.tflite").exists()
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_layer_that_a_runtime_lacks(repository: Path, tmp_path: Path, capfd: Any) -> None:
    model, _ = change(repository, tmp_path / "x.keras")
    inside = keras.ops.erfinv(model.outputs[0] * 0.5)  # in [0, 0.48], and of the same order
    odd = keras.Model(model.inputs, keras.layers.Softmax()(inside))
    _, card = model_file.load(repository / "outputs/finetune/model.keras")
    model_file.save(odd, tmp_path / "x.keras", card)
    out = tmp_path / "out"
    words = ("--model", str(tmp_path / "x.keras"), "--out", str(out))
    code, printed, error = export(repository, capfd, "onnx", "tflite", *words)
    assert code == 1
    told = error.splitlines()
    assert len(told) == 2, error
    for line, name in zip(told, ("onnx", "tflite"), strict=True):
        assert line.startswith(f"error: {name} must be able to hold every layer of the network")
        assert "erfinv" in line.lower()
        assert "export another format" in line
    assert "in place" not in printed
    assert not out.exists()
    code, _, error = export(repository, capfd, "saved_model", "onnx", *words)
    assert (code, error.count("\n")) == (1, 1), "one that fails does not stop the rest"
    assert {path.name for path in out.iterdir()} == {
        "saved_model",
        "classifier.json",
        "agreement.json",
    }


def test_integers_that_are_too_coarse(repository: Path, tmp_path: Path, capfd: Any) -> None:
    model, save = change(repository, tmp_path / "model.keras")
    # The probabilities stay, but a step of the logits' 256 is now as large as their range.
    model.get_layer("head_logits").bias.assign_add(np.full(10, 5000.0))
    words = ("tflite_int8", "--model", str(save()), "--out", str(tmp_path / "out"))
    code, _, error = export(repository, capfd, *words)
    assert (code, error.count("\n")) == (1, 1)
    assert "error: tflite_int8 must give Keras' class for at least 0.95 of the test" in error
    assert "lower --min-agreement" in error
    assert not (tmp_path / "out").exists()
    code, _, error = export(repository, capfd, *words, "--min-agreement", "0")
    assert (code, error) == (0, "")
    assert (tmp_path / "out" / "model_int8.tflite").exists()


def test_floats_that_differ(repository: Path, tmp_path: Path, capfd: Any) -> None:
    entry = keras.Input((8, 8, 3), name="pictures")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(entry))
    # One sum in two orders: what is left is rounding, which hangs on the runtime.
    inner = [keras.layers.Dense(192, use_bias=False)(flat) for _ in range(2)]
    shuffled = np.random.default_rng(0).permutation(192)
    weights = inner[0]._keras_history.operation.get_weights()[0]
    network = keras.Model(entry, inner)
    network.layers[-2].set_weights([weights])
    network.layers[-1].set_weights([weights[:, shuffled]])
    left, right = (keras.ops.sum(one, axis=1, keepdims=True) for one in inner)
    logits = keras.ops.concatenate([left - right, right - left], axis=1) * 1e9
    _, card = model_file.load(repository / "outputs/finetune/model.keras")
    logits = keras.layers.Dense(10, use_bias=False)(logits)
    model_file.save(keras.Model(entry, keras.layers.Softmax()(logits)), tmp_path / "m.keras", card)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(b"what was there")
    words = ("--model", str(tmp_path / "m.keras"), "--out", str(tmp_path / "out"))
    code, _, error = export(repository, capfd, "onnx", *words)
    assert (code, error.count("\n")) == (1, 1)
    assert "error: onnx must give Keras' classes and its probabilities within 0.001" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]
    assert (tmp_path / "out" / "model.onnx").read_bytes() == b"what was there"


def test_exports_of_another_model_are_told(repository: Path, tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "out"
    code, printed, _ = export(repository, capfd, "saved_model", "tflite", "--out", str(out))
    assert (code, "note:" in printed) == (0, False)
    before = dvc_md5(out / "model.tflite")
    model, save = change(repository, tmp_path / "model.keras")
    model.get_layer("head_logits").bias.assign_add(np.arange(10.0))
    words = ("saved_model", "--model", str(save()), "--out", str(out))
    code, printed, _ = export(repository, capfd, *words)
    assert code == 0
    assert f"note: {out / 'model.tflite'} is of another model or other data" in printed
    assert dvc_md5(out / "model.tflite") == before
    told = json.loads((out / "agreement.json").read_text())["networks"]
    assert set(told) == {"keras", "saved_model"}


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
    fitted = LogisticRegression(C=0.01).fit(features, data.labels[train])
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
    told = check_all(out, path, project / "outputs" / "prepare")
    assert told["keras"]["accuracy"] > 0.75, "the weights are real"
    assert told["tflite_int8"]["accuracy"] > 0.7


def test_constants_and_grouped_convolutions_of_other_backbones(
    repository: Path, tmp_path: Path, capfd: Any
) -> None:
    """EfficientNetV2's normalisation, ConvNeXt's convolution and GELU: Keras' ONNX export fails."""
    entry = keras.Input((8, 8, 3), name="pictures")
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
