"""Tracking in a real PostgreSQL server, with a password that must not be shown."""

import sys
from pathlib import Path

import pytest
from conftest import Run
from mlflow import MlflowClient
from postgresql import Server

pytestmark = pytest.mark.slow


def test_files_of_an_experiment_that_a_temporary_copy_made(
    server: Server, clone: Path, run: Run
) -> None:
    store = {"MLFLOW_TRACKING_URI": server.url}
    # Nothing is there yet: DVC's copy of the project makes tables and experiment.
    done = run(clone, "dvc", "exp", "run", "--temp", "-S", "finetune.epochs=2", env=store)
    message = done.stdout + done.stderr
    assert done.returncode == 0, message
    assert "other machines need that folder" in message
    client = MlflowClient(server.url)
    experiment = client.get_experiment_by_name("pipeline")
    assert experiment is not None
    assert experiment.artifact_location == (clone / "mlartifacts").as_uri()
    parents = client.search_runs([experiment.experiment_id], "params.`finetune.epochs` = '2'")
    assert parents
    for parent in parents:
        names = [item.path for item in client.list_artifacts(parent.info.run_id)]
        for name in [item for item in names if item.endswith((".yaml", ".json"))]:
            text = Path(client.download_artifacts(parent.info.run_id, name)).read_text()
            assert "secret" not in text, name
    files = {path.name for path in (clone / "mlartifacts").rglob("*") if path.is_file()}
    assert {"params.yaml", "config.yaml", "predictions.csv", "report.html"} <= files
    for command in ("compare", "doctor"):
        done = run(clone, sys.executable, "-m", "pipeline", command, env=store)
        assert "secret" not in message + done.stdout + done.stderr
    assert "tracking" in done.stdout
