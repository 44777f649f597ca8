"""The real sweep, from the command to the adopted best trial."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Run, copied, mlflow_server, run_in
from mlflow import MlflowClient
from optuna.trial import FrozenTrial

from pipeline.storage.outputs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sweep")]

QUICK = ["finetune.epochs=3", "finetune.learning_rate=1e-5", "sweep.pruner=none"]


def sweep(folder: Path, run: Run, *words: str) -> str:
    done = run(folder, sys.executable, "-m", "pipeline", "sweep", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def study_of(folder: Path) -> tuple[Path, list[FrozenTrial]]:
    """The folder of the newest study, and its trials."""
    actual = max((folder / "sweeps").glob("*-*"), key=lambda path: path.stat().st_mtime)
    storage = f"sqlite:///{folder / 'sweeps' / 'optuna.db'}"
    return actual, optuna.load_study(study_name=actual.name, storage=storage).get_trials()


def runs(folder: Path, query: str) -> list[Any]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "pipeline"]
    return list(client.search_runs([experiment.experiment_id], query))


def test_from_the_sweep_to_the_adopted_winner(clone: Path, run: Run, browser: Any) -> None:
    words = [*QUICK, "+sweep.space.head={dropout: [0.0, 0.3], units: [[], [32]]}"]
    words += ["finetune.monitor=log_loss"]
    message = sweep(clone, run, *words, "sweep.n_trials=6")
    folder, trials = study_of(clone)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert [trial.user_attrs.get("kind") for trial in trials[:3]] == ["current", "head only", None]
    assert trials[0].user_attrs["settings"]["finetune.cut"] == "block2_conv1"
    assert trials[0].user_attrs["settings"]["finetune.learning_rate"] == 1e-5
    assert trials[1].user_attrs["settings"]["finetune.cut"] == "none"
    head = json.loads((clone / ROOT / "train_head" / "summary.json").read_text())
    assert trials[1].value == head["val_score"], "head only is what train_head made"
    best = min(trials, key=lambda trial: trial.value)
    assert "fine-tuning improved the validation score" in message

    best_file = folder / "best.yaml"
    assert f"cp {best_file.relative_to(clone)} params.yaml" in best_file.read_text()

    # In MLflow: a run a study, below it one a trial.
    (parent,) = runs(clone, "tags.`sweep.role` = 'study'")
    children = runs(clone, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {item.info.status for item in (parent, *children)} == {"FINISHED"}
    assert parent.data.metrics["best_val_score"] == best.value
    assert parent.data.metrics["head_only_val_score"] == head["val_score"]
    by_number = {int(child.data.tags["sweep.trial"]): child for child in children}
    assert sorted(by_number) == list(range(6))
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    for trial in trials:
        child = by_number[trial.number]
        cut = trial.user_attrs["settings"]["finetune.cut"]
        assert child.data.params["finetune.cut"] == cut
        assert child.data.metrics["best_val_score"] == trial.value
        assert {"seconds", "cache_hits", "cache_misses"} <= set(child.data.metrics)
        epochs = client.get_metric_history(child.info.run_id, "loss")
        assert len(epochs) == (0 if cut == "none" else len(trial.intermediate_values))
    logged = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "trials.csv", "report.html"} <= logged

    # The page works without a network.
    browser.get(f"file://{folder / 'report.html'}")
    assert len(browser.find_elements("css selector", ".js-plotly-plot .main-svg")) >= 4
    assert len(browser.find_elements("css selector", "table tr")) == 7
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    with (folder / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["val_score"]) for row in table] == [trial.value for trial in trials]

    # Running again goes on, and changes nothing that is there.
    sweep(clone, run, *words, "sweep.n_trials=6")
    assert len(study_of(clone)[1]) == 6
    sweep(clone, run, *words, "sweep.n_trials=7")
    more = study_of(clone)[1]
    assert [trial.value for trial in more[:6]] == [trial.value for trial in trials]
    assert len(more) == 7

    # The winner, adopted, has the same score to the last digit, and a sweep goes on from it.
    best = min(more, key=lambda trial: trial.value)
    header = (folder / "best.yaml").read_text().splitlines()[0]
    assert repr(best.value) in header
    shutil.copy(folder / "best.yaml", clone / "params.yaml")
    assert run(clone, "dvc", "repro").returncode == 0
    summary = json.loads((clone / ROOT / "finetune" / "summary.json").read_text())
    assert summary["val_score"] == best.value
    space = "+sweep.space.head={dropout: [0.0, 0.3], units: [[], [32]]}"
    sweep(clone, run, "sweep.pruner=none", space, "sweep.n_trials=7")
    again, same = study_of(clone)
    assert (again, len(same)) == (folder, 7)
    assert (folder / "best.yaml").read_text().count("# Found by a sweep:") == 1

    # Other data are another study.
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("train_per_class: 20", "train_per_class: 10"))
    sweep(clone, run, "sweep.n_trials=1")
    other, trials = study_of(clone)
    assert (other != folder, len(finished(trials))) == (True, 1)
    assert len(list((clone / "sweeps").glob("digits-*"))) == 2


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state.is_finished()]


def start(folder: Path, *words: str, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "sweep", *words],
        cwd=folder,
        env={**os.environ, "PATH": path, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def checkpoints(folder: Path) -> list[Path]:
    return list((folder / ".work" / "finetune").glob("*/last.npz"))


FOUR = ["finetune.epochs=12", "finetune.patience=12", "sweep.n_trials=4", "sweep.pruner=none"]


@pytest.fixture(scope="module")
def uninterrupted(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an uninterrupted sweep."""
    folder = copied(repository, tmp_path_factory.mktemp("uninterrupted") / "project")
    sweep(folder, run_in, *FOUR)
    return folder


@pytest.mark.parametrize("victim", ["everything", "the worker", "the supervisor"])
def test_a_killed_sweep_ends_as_an_uninterrupted_one(
    clone: Path, uninterrupted: Path, run: Run, victim: str
) -> None:
    whole, expected = study_of(uninterrupted)
    child = start(clone, *FOUR)
    deadline = time.monotonic() + 120
    while not checkpoints(clone) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert checkpoints(clone), "in mid-trial"
    if victim == "everything":
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    elif victim == "the supervisor":
        child.kill()
        child.wait()
    else:
        listed = run(clone, "pgrep", "-P", str(child.pid), "-f", "pipeline sweep").stdout
        os.kill(int(listed.split()[-1]), signal.SIGKILL)
        assert child.wait(300) == 0, "the sweep went on by itself"
    sweep(clone, run, *FOUR)
    folder, actual = study_of(clone)
    assert [(t.number, t.params, t.value) for t in actual] == [
        (t.number, t.params, t.value) for t in expected
    ]
    assert (folder / "best.yaml").read_bytes() == (whole / "best.yaml").read_bytes()
    assert checkpoints(clone) == []
    assert {item.info.status for item in runs(clone, "tags.`sweep.role` != ''")} == {"FINISHED"}


def test_a_tracking_server_that_goes_away_costs_no_trial(
    clone: Path, run: Run, empty_store: Path, tmp_path: Path
) -> None:
    words = [*FOUR, "sweep.n_trials=3", "finetune.epochs=40", "finetune.patience=40"]
    with mlflow_server(tmp_path / "team", empty_store) as address:
        child = start(clone, *words, f"tracking.uri={address}", stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not checkpoints(clone):
            assert time.monotonic() < deadline, "in mid-trial"
            time.sleep(0.02)
    _, message = child.communicate(timeout=240)
    assert child.returncode == 1
    line = message.decode().splitlines()[-1]
    assert line.startswith("error: the tracking store "), message
    assert "Traceback" not in message.decode()
    states = [trial.state.name for trial in study_of(clone)[1]]
    assert not {"FAIL", "RUNNING"} & set(states), states
    sweep(clone, run, *words, "tracking.enabled=false")
    assert [trial.state.name for trial in study_of(clone)[1]] == ["COMPLETE"] * 3


def test_failed_and_pruned_trials_are_kept_and_tracked(clone: Path, run: Run) -> None:
    words = ["finetune.epochs=6", "finetune.patience=6", "sweep.n_trials=10"]
    words += ["sweep.sampler=random"]
    rate = "sweep.space.finetune.learning_rate"  # the second of which no training survives
    message = sweep(clone, run, *words, f"~{rate}", f"+{rate}=[1e-4, 1e30]")
    _, trials = study_of(clone)
    states = {trial.number: trial.state.name for trial in trials}
    assert {"COMPLETE", "FAIL"} <= set(states.values()) <= {"COMPLETE", "FAIL", "PRUNED"}
    status = {"COMPLETE": "FINISHED", "FAIL": "FAILED", "PRUNED": "KILLED"}
    children = runs(clone, "tags.`sweep.role` = 'trial'")
    assert {int(c.data.tags["sweep.trial"]): c.info.status for c in children} == {
        number: status[state] for number, state in states.items()
    }
    failed = next(trial for trial in trials if trial.state.name == "FAIL")
    assert "the loss was" in failed.user_attrs["error"]
    assert "Traceback" in failed.user_attrs["error"]
    assert f"{sum(state == 'FAIL' for state in states.values())} failed" in message
    child = next(c for c in children if int(c.data.tags["sweep.trial"]) == failed.number)
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    assert "traceback.txt" in {f.path for f in client.list_artifacts(child.info.run_id)}


def test_two_workers_on_a_grid(clone: Path, run: Run) -> None:
    rate = "sweep.space.finetune.learning_rate"
    words = ["finetune.epochs=2", "sweep.sampler=grid", "sweep.workers=2"]
    words += [f"~{rate}", f"+{rate}=[1e-4, 1e-3]"]
    sweep(clone, run, *words, "sweep.n_trials=50", "tracking.enabled=false")
    folder, trials = study_of(clone)
    tried = [tuple(sorted(t.user_attrs["settings"].items())) for t in finished(trials)]
    cuts = {dict(settings)["finetune.cut"] for settings in tried}
    assert cuts == {"block1_conv1", "block2_conv1", "block3_conv1", "none"}
    assert len(tried) == 3 * 2 + 1, "each once, though 50 were asked for"
    assert len(set(tried)) == len(tried)
    assert {path.name for path in folder.glob("worker-*.log")} == {"worker-0.log", "worker-1.log"}


def test_a_sweep_that_a_mistake_ends_has_failed(clone: Path, run: Run) -> None:
    done = run(clone, sys.executable, "-m", "pipeline", "sweep", "sweep.sampler=grid")
    assert done.returncode == 1
    assert "grid needs lists of choices" in done.stderr
    states = {item.info.status for item in runs(clone, "tags.`sweep.role` = 'study'")}
    assert states == {"FAILED"}, "neither going on nor stopped by somebody"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prepare.image_size=16", "so prepare.image_size=16 must be set there"),
        ("seed=1", "so seed=1 must be set there"),
        ("data.use=folder", "so data.use=folder must be set there"),
        ("sweep.n_trials=0", "sweep.n_trials must be at least 1, got 0"),
        ("sweep.sampler=tpee", "sweep.sampler must be one of tpe, random, grid, got 'tpee'"),
        ("sweep.cuts=[nowhere]", "finetune.cut=nowhere is not a layer of glyph_cnn"),
        ("sweep.sampler=grid", "sweep.sampler=grid needs lists of choices"),
    ],
)
def test_mistakes_are_told_in_one_line(clone: Path, run: Run, word: str, message: str) -> None:
    done = run(clone, sys.executable, "-m", "pipeline", "sweep", word, "tracking.enabled=false")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
