"""Several objectives, image sizes, folds, and stopping without improvement."""

import csv
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import keras
import pytest
import yaml
from conftest import Run
from test_sweep import start, study_of, sweep

from pipeline.networks.backbones import glyph_cnn
from pipeline.storage.outputs import ROOT

pytestmark = pytest.mark.slow

TWO = ["sweep.sampler=random", "finetune.epochs=6", "sweep.n_trials=8", "sweep.soup=false"]
TWO += ["sweep.objectives=[val_accuracy,ms_per_image]", "+sweep.space.backbone=[small.keras]"]


def small(folder: Path) -> None:
    """A faster, less accurate network."""
    keras.utils.set_random_seed(0)
    whole = glyph_cnn.network(8)
    whole.load_weights(glyph_cnn.WEIGHTS)
    first = whole.get_layer("block1_conv2_relu").output
    keras.Model(whole.inputs, keras.layers.Flatten()(first)).save(folder / "small.keras")


def finished(folder: Path) -> int:
    """Complete trials; Optuna itself would make the tables, at the same time as the sweep."""
    path = folder / "sweeps" / "optuna.db"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
            query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
            return int(base.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_two_objectives_over_two_backbones_killed_and_resumed(clone: Path, run: Run) -> None:
    small(clone)
    child = start(clone, *TWO)
    deadline = time.monotonic() + 120
    while finished(clone) < 3:
        assert time.monotonic() < deadline, "in the middle"
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    message = sweep(clone, run, *TWO)
    folder, trials = study_of(clone)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 8
    names = ("val_accuracy", "ms_per_image")
    values = [tuple(trial.user_attrs[name] for name in names) for trial in trials]
    assert [tuple(trial.values) for trial in trials] == values
    used = [trial.user_attrs["settings"].get("backbone.use", "glyph_cnn") for trial in trials]
    times = {(name, ms) for name, (_, ms) in zip(used, values, strict=True)}
    assert len(times) == len(set(used)) == 2, "measured once a network"
    front = {
        number
        for number, (accuracy, ms) in enumerate(values)
        if not any(a >= accuracy and m <= ms and (a, m) != (accuracy, ms) for a, m in values)
    }
    written = {int(path.stem.removeprefix("trial_")) for path in (folder / "front").iterdir()}
    assert written == front
    for file in (folder / "front").iterdir():
        assert f"cp {file.relative_to(clone)} params.yaml" in file.read_text()
    page = (folder / "report.html").read_text()
    assert "Pareto-front Plot" in page
    assert "* on the Pareto front" in page
    assert "Pareto front for val_accuracy, ms_per_image" in message
    best = max(trials, key=lambda trial: trial.values[0])
    adopted = yaml.safe_load((folder / "best.yaml").read_text())
    accuracy = trials[best.number].values[0]
    assert f"val_accuracy {accuracy!r}" in (folder / "best.yaml").read_text()
    assert adopted["finetune"]["cut"]
    with (folder / "trials.csv").open() as file:
        assert {row["ms_per_image"] for row in csv.DictReader(file)} != {""}


def test_sizes_of_images_are_searched(clone: Path, run: Run) -> None:
    words = ["finetune.epochs=3", "sweep.pruner=none", "sweep.sampler=random", "sweep.soup=false"]
    message = sweep(clone, run, *words, "+sweep.space.prepare.image_size=[12]", "sweep.n_trials=6")
    _, trials = study_of(clone)
    sides = [trial.user_attrs["settings"]["prepare.image_size"] for trial in trials]
    assert sides[:2] == [8, 8], "params.yaml as it is, and its head alone"
    assert set(sides) == {8, 12}
    assert "6 trials" in message
    other = trials[sides.index(12)]
    settings = [f"{key}={value}" for key, value in other.user_attrs["settings"].items()]
    for stage in ("prepare", "extract_features", "train_head", "finetune"):
        done = run(clone, sys.executable, "-m", "pipeline", stage, "finetune.epochs=3", *settings)
        assert done.returncode == 0, done.stderr
    summary = json.loads((clone / ROOT / "finetune" / "summary.json").read_text())
    assert summary["val_score"] == other.value, "what the pipeline makes of the same settings"


def test_trials_judged_by_folds(clone: Path, run: Run) -> None:
    words = ["finetune.epochs=3", "sweep.pruner=wilcoxon", "sweep.folds=5", "sweep.n_trials=6"]
    sweep(clone, run, *words)
    _, trials = study_of(clone)
    for trial in trials[:2]:
        scores = list(trial.intermediate_values.values())
        assert len(scores) == 5, "one a fold"
        assert trial.value == pytest.approx(sum(scores) / 5)
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    places = {name: set() for name in ("train", "val", "test")}
    judged: list[str] = []
    for path in (clone / ".work" / "folds").glob("*/manifest.csv"):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        judged += [row["path"] for row in rows if row["split"] == "val"]
        places["test"] |= {row["path"] for row in rows if row["split"] == "test"}
    assert len(judged) == len(set(judged)) == 400, "each image of train and val once"
    assert not places["test"] & set(judged)


def test_a_sweep_ends_when_nothing_gets_better(clone: Path, run: Run) -> None:
    words = ["finetune.epochs=1", "sweep.pruner=none", "sweep.sampler=random", "sweep.soup=false"]
    words += ["sweep.cuts=[block3_conv2]", "+sweep.space.finetune.label_smoothing=[0.0]"]
    message = sweep(clone, run, *words, "sweep.n_trials=30", "sweep.patience=4")
    _, trials = study_of(clone)
    best = min(trials, key=lambda trial: (trial.value, trial.number))
    assert len(trials) == best.number + 5
    assert len(trials) < 30
    assert f"{len(trials)} trials" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep.objectives=[ms_per_image]"], "sweep.objectives must begin with one of val_score"),
        (["sweep.objectives=[val_score,speed]"], "got ['val_score', 'speed']"),
        (["sweep.pruner=wilcoxon"], "set sweep.folds=5"),
        (["+sweep.space.prepare.image_size={low: 8, high: 16}"], "must be a list of sizes in px"),
    ],
)
def test_what_no_sweep_can_be_judged_by(
    clone: Path, run: Run, words: list[str], message: str
) -> None:
    done = run(clone, sys.executable, "-m", "pipeline", "sweep", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((clone / "sweeps").glob("*-*"))
    shutil.rmtree(clone / "sweeps", ignore_errors=True)
