"""A preset on real pictures with real weights, by name; by path: test_evaluate.py."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Run

pytestmark = pytest.mark.slow


def test_hymenoptera(project: Path, run: Run, shared: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, project / "mlflow.db")
    text = (project / "conf/experiment/hymenoptera_mobilenet_v2.yaml").read_text()
    text = text.replace("../shared", str(shared))
    text = text.replace("weights: ${backbone.path}", "weights: imagenet")
    (project / "params.yaml").write_text(text)
    (project / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    home = {"KERAS_HOME": str(shared / "weights" / "keras_home")}
    done = run(project, "dvc", "repro", env=home)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((project / "outputs/evaluate/metrics.json").read_text())
    assert metrics["head_only"]["accuracy"] > 0.85
    assert metrics["fine_tuned"]["accuracy"] > 0.85
    card = json.loads((project / "outputs/extract_features/backbone.json").read_text())
    assert len(card["weights_sha256"]) == 64
