"""Choices of a sweep besides settings: other backbones, and the average of its best trials."""

import json
import shutil
import sys
from pathlib import Path

import keras
import optuna
import pytest
import yaml
from conftest import Run
from test_sweep import study_of, sweep

from pipeline.networks.backbones import glyph_cnn
from pipeline.storage.outputs import ROOT

pytestmark = pytest.mark.slow


def test_the_best_trials_are_averaged_at_the_end(clone: Path, run: Run) -> None:
    words = ["finetune.epochs=4", "sweep.pruner=none", "sweep.cuts=[block2_conv1]"]
    message = sweep(clone, run, *words, "sweep.n_trials=6")
    folder, trials = study_of(clone)
    assert len(trials) == 6, "the average is no trial"
    storage = f"sqlite:///{clone / 'sweeps' / 'optuna.db'}"
    actual = optuna.load_study(study_name=folder.name, storage=storage).user_attrs["soup"]
    best = min(trials, key=lambda trial: trial.value)
    assert actual["tried"][0] == best.number
    assert len(actual["tried"]) == 5, "head only has nothing in common with them"
    assert actual["val_score"] <= best.value
    adopted = yaml.safe_load((folder / "best.yaml").read_text())
    if actual["val_score"] == best.value:
        assert "did not improve the score" in message
        assert "soup" not in adopted["finetune"]
        return
    assert "averaging the weights of trials" in message
    assert len(adopted["finetune"]["soup"]) == len(actual["kept"]) - 1
    shutil.copy(folder / "best.yaml", clone / "params.yaml")
    done = run(clone, "dvc", "repro", "finetune")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((clone / ROOT / "finetune" / "summary.json").read_text())
    assert summary["val_score"] == actual["val_score"]


def test_backbones_are_searched_too(clone: Path, run: Run) -> None:
    """A second network as a file: the included one, untrained."""
    keras.utils.set_random_seed(0)
    glyph_cnn.network(8).save(clone / "fresh.keras")
    words = ["finetune.epochs=2", "sweep.pruner=none", "sweep.sampler=random"]
    message = sweep(clone, run, *words, "+sweep.space.backbone=[fresh.keras]", "sweep.n_trials=8")
    folder, trials = study_of(clone)
    used = [trial.user_attrs["settings"].get("backbone.use", "glyph_cnn") for trial in trials]
    assert used[:2] == ["glyph_cnn", "glyph_cnn"], "params.yaml as it is, and its head alone"
    assert {"glyph_cnn", "keras_file"} == set(used)
    best = min(trials, key=lambda trial: trial.value)
    assert used[best.number] == "glyph_cnn", "what was trained before is better"
    worst = max(trials, key=lambda trial: trial.value)
    assert used[worst.number] == "keras_file"
    assert "fresh.keras" in (folder / "report.html").read_text()
    assert "8 trials" in message
    # A trial of another backbone is what the pipeline makes of the same settings.
    settings = worst.user_attrs["settings"]
    words = [f"{key}={value}" for key, value in settings.items()]
    for stage in ("extract_features", "train_head", "finetune"):
        done = run(clone, sys.executable, "-m", "pipeline", stage, "finetune.epochs=2", *words)
        assert done.returncode == 0, done.stderr
    summary = json.loads((clone / ROOT / "finetune" / "summary.json").read_text())
    assert summary["val_score"] == worst.value


def test_a_backbone_section_that_others_could_not_share(clone: Path, run: Run) -> None:
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(
        text.replace("  use: glyph_cnn ", "  weights: letters\n  use: glyph_cnn ")
    )
    done = run(clone, sys.executable, "-m", "pipeline", "sweep", "+sweep.space.backbone=[resnet50]")
    assert done.returncode == 1
    assert "requires a section backbone with only use and path, got also weights" in done.stderr


def test_another_content_of_a_further_backbone_is_another_study(clone: Path, run: Run) -> None:
    words = ["sweep.n_trials=1", "finetune.epochs=1", "+sweep.space.backbone=[fresh.keras]"]
    names = []
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        glyph_cnn.network(8).save(clone / "fresh.keras")
        sweep(clone, run, *words)
        names.append(study_of(clone)[0].name)
    assert names[0] != names[1]
