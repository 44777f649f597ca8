"""Results depend on the config only, not on settings of the machine, user or shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, Run

STATE = """
from pipeline.networks import runtime
runtime.configure(0, 1)
import keras
print(keras.config.backend(), keras.config.floatx(), keras.config.epsilon(),
      keras.config.image_data_format(), keras.config.max_epochs())
"""
OWN = "tensorflow float32 1e-07 channels_last None"


def python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a new process, not a fork that has already read the environment."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=PROJECT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_keras_has_its_own_defaults(tmp_path: Path) -> None:
    (tmp_path / ".keras").mkdir()
    settings = {"floatx": "float16", "epsilon": 0.01, "image_data_format": "channels_first"}
    text = json.dumps({**settings, "backend": "torch"})
    (tmp_path / ".keras" / "keras.json").write_text(text)
    done = python("-c", STATE, HOME=str(tmp_path), KERAS_BACKEND="jax", KERAS_MAX_EPOCHS="1")
    assert done.stdout.strip() == OWN, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{"floatx": "float13"}', "[1, 2]", '{"epsilon": "small"}'])
def test_a_keras_json_that_keras_cannot_read(tmp_path: Path, text: str, repository: Path) -> None:
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train_head", "tracking.enabled=false"],
        cwd=repository,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: Keras cannot read its settings in ")


def test_variables_that_change_results_are_taken_out() -> None:
    names = {
        "KERAS_BACKEND": "jax",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "XLA_FLAGS": "nonsense",
        "ONEDNN_DEFAULT_FPMATH_MODE": "bf16",
        "TF_ENABLE_AUTO_MIXED_PRECISION": "1",
        "NVIDIA_TF32_OVERRIDE": "1",
        "TF_SET_ONEDNN_FPMATH_MODE": "BF16",
        "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1",
        "KERAS_HOME": "elsewhere",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    code = f"import os, pipeline; print([os.environ.get(n) for n in {list(names)}])"
    done = python("-c", code, **names)
    expected = ["tensorflow", "1", *[None] * 7, "elsewhere", "2"]
    assert done.stdout.strip() == str(expected), done.stderr


@pytest.mark.parametrize("words", [["--help"], ["finetune", "--help"]])
def test_help_without_docstrings(words: list[str]) -> None:
    done = python("-m", "pipeline", *words, PYTHONOPTIMIZE="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout == python("-m", "pipeline", *words).stdout


def test_a_terminal_that_knows_no_accents(tmp_path: Path) -> None:
    done = python("-c", PRINTS, PYTHONIOENCODING="ascii")
    assert done.stdout == "\\xe9t\\xe9\n", done.stderr


PRINTS = """
import sys
from pipeline import __main__, runner
runner.run = lambda *_: print("été") or 0
sys.exit(__main__.main(["cuts"]))
"""


def test_a_python_without_the_libraries() -> None:
    done = python("-S", "-m", "pipeline", "doctor", PYTHONPATH=str(PROJECT))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "is not installed for" in line
    assert ".venv/bin/python" in line


@pytest.mark.slow
def test_a_report_follows_its_outputs(clone: Path, run: Run) -> None:
    page, params = clone / "outputs" / "report.html", clone / "params.yaml"
    first, text = page.read_bytes(), params.read_text()
    params.write_text(text.replace("cut: block2_conv1", "cut: none"))
    assert run(clone, "dvc", "repro").returncode == 0
    other = page.read_bytes()
    assert other != first
    params.write_text(text)
    done = run(clone, "dvc", "repro")
    assert "Running stage" not in done.stdout, "all of it is in DVC's run cache"
    assert page.read_bytes() == first


def test_outputs_that_dvc_lock_does_not_record(clone: Path, run: Run, image_folder: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "predict", str(image_folder / "dark" / "0.png")]
    assert "warning" not in run(clone, *words).stderr
    lock = (clone / "dvc.lock").read_text()
    stage = lock.index("  finetune:")
    at = lock.index("md5:", lock.index("outs:", stage)) + 5
    (clone / "dvc.lock").write_text(lock[:at] + "0" * 4 + lock[at + 4 :])
    done = run(clone, *words)
    assert done.returncode == 0
    assert "warning: outputs/finetune differs from dvc.lock" in done.stderr


def test_a_folder_of_another_user(clone: Path, run: Run) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs the right to give a folder to another user")
    for path in (clone, clone / ".git"):
        os.chown(path, 65534, 65534)
    words = [sys.executable, "-m", "pipeline"]
    done = run(clone, *words, "prepare", env={"HOME": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert "warning: this folder belongs to another user" in done.stderr
    assert "git config --global --add safe.directory" in done.stderr
    checked = run(clone, *words, "doctor", env={"HOME": "/nonexistent"})
    assert "belongs to another user" in checked.stdout
    assert "no commit" not in checked.stdout


@pytest.mark.parametrize("command", ["report", "check", "promote", "export", "predict"])
def test_before_the_first_run(
    project: Path, run: Run, image_folder: Path, command: str, empty_store: Path
) -> None:
    (project / "mlflow.db").write_bytes(empty_store.read_bytes())
    words = {"check": [str(image_folder)], "export": ["onnx"], "predict": [str(image_folder)]}
    done = run(project, sys.executable, "-m", "pipeline", command, *words.get(command, []))
    assert done.returncode == 1, done.stdout
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "run dvc repro" in done.stderr or "`dvc repro`" in done.stderr
