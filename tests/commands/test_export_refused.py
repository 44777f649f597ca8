"""Exports that are refused, or need an option: one line each."""

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import Run
from exporting import change, export

from pipeline.data.decoding import Decoding, Fit
from pipeline.networks import model_file
from pipeline.storage.digests import dvc_md5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("onnx", "coreml"), "choose from saved_model, onnx, tflite, tflite_int8"),
        (("--model", "no.keras"), "no model at no.keras"),
        (("--min-agreement", "95"), "--min-agreement must be between 0 and 1, got 95.0"),
    ],
)
def test_bad_words(repository: Path, capfd: Any, words: tuple[str, ...], message: str) -> None:
    code, printed, error = export(repository, capfd, *words)
    assert (code, printed, error.count("\n")) == (1, "", 1)
    assert error.startswith("error: ")
    assert message in error
    assert not (repository / "exported").exists()


def test_images_that_are_not_the_models(repository: Path, tmp_path: Path, capfd: Any) -> None:
    _, save = change(
        repository, tmp_path / "model.keras", image_size=16, decoding=Decoding(Fit.pad)
    )
    code, _, error = export(repository, capfd, "--model", str(save()))
    assert (code, error.count("\n")) == (1, 1)
    assert "the model: 16 px, pad, 10 classes (0, 1, 2 ...) expected, got 8 px" in error
    code, _, error = export(tmp_path, capfd, "--model", str(tmp_path / "model.keras"))
    assert (code, error.count("\n")) == (1, 1)
    assert "no manifest.csv in outputs/prepare: run the prepare stage first" in error


@pytest.mark.slow
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
    assert f"onnx         skipped: needs {remedy}\n" in done.stdout
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
    message = error.splitlines()
    assert len(message) == 2, error
    for line, name in zip(message, ("onnx", "tflite"), strict=True):
        assert line.startswith(f"error: {name} cannot represent this network")
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
    assert "error: tflite_int8 gives Keras' answer for 0.9" in error
    assert "lower --min-agreement" in error
    assert not (tmp_path / "out").exists()
    code, _, error = export(repository, capfd, *words, "--min-agreement", "0")
    assert (code, error) == (0, "")
    assert (tmp_path / "out" / "model_int8.tflite").exists()


def test_floats_that_differ(repository: Path, tmp_path: Path, capfd: Any) -> None:
    entry = keras.Input((8, 8, 3), name="images")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(entry))
    # One sum in two orders: what is left is rounding, which hangs on the runtime.
    inner = [keras.layers.Dense(192, use_bias=False)(flat) for _ in range(2)]
    shuffled = np.random.default_rng(0).permutation(192)
    weights = inner[0]._keras_history.operation.get_weights()[0]
    network = keras.Model(entry, inner)
    network.layers[-2].set_weights([weights])
    network.layers[-1].set_weights([weights[:, shuffled]])
    left, right = (keras.ops.sum(item, axis=1, keepdims=True) for item in inner)
    logits = keras.ops.concatenate([left - right, right - left], axis=1) * 1e9
    _, card = model_file.load(repository / "outputs/finetune/model.keras")
    logits = keras.layers.Dense(10, use_bias=False)(logits)
    model_file.save(keras.Model(entry, keras.layers.Softmax()(logits)), tmp_path / "m.keras", card)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.onnx").write_bytes(b"what was there")
    words = ("--model", str(tmp_path / "m.keras"), "--out", str(tmp_path / "out"))
    code, _, error = export(repository, capfd, "onnx", *words)
    assert (code, error.count("\n")) == (1, 1)
    assert "error: onnx must give Keras' answers with outputs within 0.001" in error
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
    assert f"note: {out / 'model.tflite'} belongs to another model or dataset" in printed
    assert dvc_md5(out / "model.tflite") == before
    message = json.loads((out / "agreement.json").read_text())["networks"]
    assert set(message) == {"keras", "saved_model"}
