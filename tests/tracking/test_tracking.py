"""Real MLflow on sqlite: parents, children, tags, links in both directions."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import Run, mlflow_server
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities import Run as MlflowRun

from pipeline.storage.outputs import STAGES


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs(folder: Path, query: str = "") -> list[MlflowRun]:
    client = client_of(folder)
    experiments = [e.experiment_id for e in client.search_experiments() if e.name == "pipeline"]
    return list(client.search_runs(experiments, query, order_by=["attributes.start_time ASC"]))


def logged_models(folder: Path) -> list[LoggedModel]:
    client = client_of(folder)
    experiments = [e.experiment_id for e in client.search_experiments() if e.name == "pipeline"]
    return list(client.search_logged_models(experiments))


def stage(folder: Path, run: Run, name: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", name, *overrides)


def test_one_parent_with_a_child_for_each_stage(repository: Path) -> None:
    (parent,) = runs(repository, "tags.`pipeline.state` != ''")
    children = runs(repository, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert [child.info.run_name for child in children] == list(STAGES)
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    params, metrics = parent.data.params, parent.data.metrics
    assert params["finetune.cut"] == "block2_conv1"
    assert params["backbone.use"] == "glyph_cnn"
    assert metrics["test_accuracy_fine_tuned"] > 0.95
    assert metrics["finetune.val_accuracy"] > 0.9
    assert len(parent.data.tags["backbone.weights_sha256"]) == 64
    prepare = children[0].data.metrics
    assert prepare["images_train"] == 200
    for run in [parent, *children]:
        tags = run.data.tags
        assert len(tags["git.commit"]) == 40
        assert tags["git.dirty"] == "false"
        assert tags["backbone"] == "glyph_cnn"
        assert tags["cut"] == "block2_conv1"
        (dataset,) = run.inputs.dataset_inputs
        assert dataset.dataset.name == "digits"
        assert tags["data.md5"] == f"{dataset.dataset.digest}.dir"


def test_from_the_lock_file_to_the_run_and_back(repository: Path) -> None:
    lock = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]
    for name in STAGES:
        (run,) = runs(repository, f"tags.`dvc.out.md5` = '{lock[name]['outs'][0]['md5']}'")
        assert run.data.tags["dvc.stage"] == name
    for name in STAGES:
        for file in (repository / "outputs" / name).rglob("*.json"):
            assert not any(run.info.run_id in file.read_text() for run in runs(repository))


def test_curves_artifacts_and_model(repository: Path, tmp_path: Path) -> None:
    client = client_of(repository)
    by_name = {run.info.run_name: run for run in runs(repository)}
    for name in ("train_head", "finetune"):
        history = (repository / "outputs" / name / "history.csv").read_text().splitlines()[1:]
        curve = client.get_metric_history(by_name[name].info.run_id, "val_loss")
        epochs = [int(float(line.split(",")[0])) for line in history]
        assert sorted({point.step for point in curve} - {0}) == epochs
    (parent,) = runs(repository, "tags.`pipeline.state` != ''")
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"config.yaml", "params.yaml", "plots"} <= artifacts
    config = client.download_artifacts(parent.info.run_id, "config.yaml", str(tmp_path))
    assert "label_smoothing" in Path(config).read_text()
    logged = client.search_logged_models(experiment_ids=[parent.info.experiment_id])
    (model,) = [entry for entry in logged if entry.source_run_id == by_name["finetune"].info.run_id]
    folder = Path(model.artifact_location.removeprefix("file://"))
    described = yaml.safe_load((folder / "MLmodel").read_text())
    assert described["signature"]["inputs"]
    assert "tensorflow==2.21" in (folder / "requirements.txt").read_text()


@pytest.mark.slow
def test_a_skipped_stage_logs_nothing_and_is_linked(clone: Path, run: Run) -> None:
    before = {entry.info.run_id for entry in runs(clone)}
    path = clone / "params.yaml"
    path.write_text(path.read_text().replace("cut: block2_conv1", "cut: none"))
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    new = [entry for entry in runs(clone) if entry.info.run_id not in before]
    parent, *children = sorted(new, key=lambda entry: "pipeline.state" not in entry.data.tags)
    assert {child.info.run_name for child in children} == {"finetune", "evaluate"}
    old = {
        entry.info.run_name: entry.info.run_id
        for entry in runs(clone)
        if entry.info.run_id in before
    }
    for name in ("prepare", "extract_features", "train_head"):
        assert parent.data.tags[f"run.{name}"] == old[name]
    assert parent.data.tags["git.dirty"] == "true"
    assert parent.data.metrics["train_head.val_accuracy"] > 0.9
    patch = client_of(clone).list_artifacts(parent.info.run_id)
    assert "changes.patch" in {item.path for item in patch}


@pytest.mark.slow
def test_a_stage_that_fails_is_failed_and_one_that_is_killed_too(clone: Path, run: Run) -> None:
    done = stage(clone, run, "finetune", "finetune.cut=nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: finetune.cut=nowhere is not a layer of glyph_cnn")
    failed = runs(clone)[-1]
    assert failed.info.status == "FAILED"
    assert "nowhere" in failed.data.tags["error"]

    command = [sys.executable, "-m", "pipeline", "train_head", "train_head.epochs=100000"]
    child = subprocess.Popen(
        [*command, "train_head.patience=100000"], cwd=clone, env=os.environ, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and runs(clone)[-1].info.status != "RUNNING":
        time.sleep(0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert runs(clone)[-1].info.status == "RUNNING"
    assert stage(clone, run, "evaluate").returncode == 0
    statuses = {entry.info.status for entry in runs(clone)}
    assert "RUNNING" not in statuses
    killed = [
        entry for entry in runs(clone) if entry.data.tags.get("error") == "the process was killed"
    ]
    assert "train_head" in {entry.info.run_name for entry in killed}


def test_another_store_and_none(clone: Path, run: Run, empty_store: Path, tmp_path: Path) -> None:
    shutil.copy(empty_store, tmp_path / "other.db")
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    command = [sys.executable, "-m", "pipeline", "prepare"]
    before = len(runs(clone))
    assert run(clone, *command, env={"MLFLOW_TRACKING_URI": uri}).returncode == 0
    other = MlflowClient(uri)
    actual = [e.experiment_id for e in other.search_experiments() if e.name == "pipeline"]
    assert {r.info.run_name for r in other.search_runs(actual)} >= {"prepare"}
    assert stage(clone, run, "prepare", "tracking.enabled=false").returncode == 0
    assert len(runs(clone)) == before
    done = stage(clone, run, "prepare", "tracking.uri=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "error: the tracking store http://127.0.0.1:9 does not answer" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_project_that_was_moved_takes_its_runs_along(
    clone: Path, repository: Path, run: Run, image_folder: Path, tmp_path: Path
) -> None:
    chosen = (tmp_path / "elsewhere" / "mlartifacts").as_uri()
    client = client_of(clone)
    client.create_run(client.create_experiment("chosen", artifact_location=chosen))
    place = clone.rename(tmp_path / "50 % moved")

    def predict() -> subprocess.CompletedProcess[str]:
        return stage(place, run, "predict", str(image_folder), "--model", f"models:/{model}")

    (model,) = {entry.model_id for entry in logged_models(place)}
    first, second = predict(), predict()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert f"the project was moved: its runs are now in {place / 'mlartifacts'}" in first.stderr
    assert "was moved" not in second.stderr
    assert first.stdout == second.stdout
    here = (place / "mlartifacts").as_uri()
    assert {Path(entry.info.artifact_uri).parents[1] for entry in runs(place)} == {Path(here)}
    assert {Path(entry.artifact_location).parents[2] for entry in logged_models(place)} == {
        Path(here)
    }
    locations = {
        entry.name: entry.artifact_location for entry in client_of(place).search_experiments()
    }
    assert (locations["pipeline"], locations["chosen"]) == (here, chosen)
    there = (repository / "mlartifacts").as_uri()
    assert {Path(entry.info.artifact_uri).parents[1] for entry in runs(repository)} == {Path(there)}

    shutil.rmtree(place / "mlartifacts" / "models")
    gone = predict()
    assert gone.returncode == 1
    assert "it is registered, but its files are missing" in gone.stderr


@pytest.mark.usefixtures("cwd")
def test_the_store_is_made_once_by_many(tmp_path: Path) -> None:
    code = (
        "from pipeline.sections import Tracking; from pipeline.tracking import store; "
        "store.connect(Tracking())"
    )
    children = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) for _ in range(3)]
    assert [child.wait() for child in children] == [0, 0, 0]
    assert client_of(tmp_path).search_experiments()


@pytest.mark.slow
def test_a_server_that_goes_away_is_told_and_nothing_is_lost(
    clone: Path, run: Run, empty_store: Path, tmp_path: Path
) -> None:
    words = ["train_head", "train_head.epochs=600", "train_head.patience=600"]
    with mlflow_server(tmp_path / "team", empty_store) as address:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline", *words, f"tracking.uri={address}"],
            cwd=clone,
            env={**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while not list((clone / ".work" / "train_head").glob("*/last.npz")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    _, message = child.communicate(timeout=120)
    assert child.returncode == 1
    rule = f"error: the tracking store {address} stopped answering: "
    assert message.splitlines()[-1].startswith(rule), message
    assert "Traceback" not in message
    done = stage(clone, run, *words, "tracking.enabled=false")
    assert "resuming after epoch" in done.stdout


def test_what_was_removed_costs_its_link_and_no_more(clone: Path, run: Run) -> None:
    (parent,) = runs(clone, "tags.`pipeline.state` != ''")
    client, gone = client_of(clone), parent.data.tags["run.prepare"]
    client.delete_run(gone)
    with sqlite3.connect(clone / "mlflow.db") as database:  # as `mlflow gc` does
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (gone,))
    done = run(clone, sys.executable, "-m", "pipeline", "report")
    assert done.returncode == 0, done.stderr
    logged = [file.path for file in client.list_artifacts(parent.info.run_id)]
    assert "report.html" in logged


def test_a_deleted_experiment_is_told_from_an_absent_server(clone: Path, run: Run) -> None:
    client = client_of(clone)
    client.delete_experiment(client.get_experiment_by_name("pipeline").experiment_id)
    done = stage(clone, run, "evaluate")
    assert done.returncode == 1
    assert done.stderr.startswith("error: tracking.experiment=pipeline was deleted")
    assert "mlflow experiments restore -x 1" in done.stderr
    assert done.stderr.count("\n") == 1
