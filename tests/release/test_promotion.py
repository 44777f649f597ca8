"""promote and rollback on a real registry: worse, better, killed, two at once, other images."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, mlflow_server
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from pipeline import dialect
from pipeline.data.decoding import Decoding, Fit
from pipeline.data.manifest import Manifest
from pipeline.data.predictions import Predictions
from pipeline.data.tasks.classification import TASK
from pipeline.errors import InputError
from pipeline.intake.sources import digits
from pipeline.release import promotion
from pipeline.release.registry import Registry
from pipeline.serving.classifier import Classifier

pytestmark = pytest.mark.slow


def pipeline(folder: Path, run: Run, *words: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", *words)


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def champion(folder: Path) -> ModelVersion:
    return client_of(folder).get_model_version_by_alias("classifier", "champion")


def decision(folder: Path, version: ModelVersion, scratch: Path) -> dict:
    client = client_of(folder)
    run = version.tags["promotion.run"]
    return json.loads(
        Path(client.download_artifacts(run, "decision.json", str(scratch))).read_text()
    )


WEAK = {
    "epochs": ("epochs: 100", "epochs: 2"),
    "cut": ("cut: block2_conv1", "cut: none"),
    "calibrate": ("batch_norm: train", "calibrate: false\n  batch_norm: train"),
}
"""A head that has hardly learned, as unsure as it is."""


def repro(folder: Path, run: Run, **replaced: str) -> None:
    """Write params.yaml with some lines replaced, and run."""
    path = folder / "params.yaml"
    text = path.read_text()
    for old, new in replaced.values():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr


def test_worse_is_refused_better_promoted_and_the_way_back(
    clone: Path, run: Run, tmp_path: Path
) -> None:
    dry = pipeline(clone, run, "promote", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "dry run: the model would be promoted" in dry.stdout
    assert client_of(clone).search_registered_models() == []
    good = (clone / "params.yaml").read_text()
    repro(clone, run, **WEAK)
    weak = pipeline(clone, run, "promote")
    assert weak.stderr.startswith("error: not promoted, there is no champion: calibration error")
    first = pipeline(
        clone, run, "promote", "promote.min_recall=null", "promote.max_calibration_error=null"
    )
    assert (first.returncode, first.stderr) == (0, ""), "libraries are silent"
    assert champion(clone).version == 1

    (clone / "params.yaml").write_text(good)
    repro(clone, run)
    killed = run(clone, sys.executable, "-c", KILLED_AT_THE_END)
    assert killed.returncode == -9
    assert champion(clone).version == 1, "a killed promotion leaves the old champion"
    assert len(client_of(clone).search_model_versions("name = 'classifier'")) == 2

    second = pipeline(clone, run, "promote")
    assert second.returncode == 0, second.stderr
    assert "promoted: classifier version 2 is the champion" in second.stdout
    made = champion(clone)
    assert made.version == 2, "the version that was registered before the kill is used"
    message = decision(clone, made, tmp_path)
    assert message["champion"] == "classifier/1"
    assert [rule["holds"] for rule in message["rules"]] == [True] * 5
    assert made.description.startswith("digits, glyph_cnn, cut block2_conv1: accuracy 0.96")
    lock = (clone / "dvc.lock").read_text()
    for stage in ("prepare", "finetune", "evaluate"):
        assert made.tags[f"dvc.lock.{stage}"] in lock
    promotion_run = client_of(clone).get_run(made.tags["promotion.run"])
    parent = client_of(clone).get_run(promotion_run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["pipeline.state"], "it lies below the run of the state it promotes"
    head = run(clone, "git", "rev-parse", "HEAD").stdout.strip()
    assert made.tags["git.commit"] == head
    metrics = json.loads((clone / "outputs/evaluate/metrics.json").read_text())["fine_tuned"]
    assert float(made.tags["metrics.accuracy"]) == pytest.approx(metrics["accuracy"], abs=1e-6)
    again = pipeline(clone, run, "promote")
    assert again.stdout == "classifier version 2 already is this model\n"

    repro(clone, run, **WEAK)
    worse = pipeline(clone, run, "promote")
    assert worse.returncode == 1
    assert worse.stderr.startswith("error: not promoted, the champion stays: accuracy at most")
    assert "accuracy at most 0.01 worse than the champion's" in worse.stdout
    assert champion(clone).version == 2
    run_of_champion = client_of(clone).get_run(made.tags["promotion.run"]).info
    (Path(run_of_champion.artifact_uri.removeprefix("file://")) / "predictions.parquet").unlink()
    anew = pipeline(clone, run, "promote", "--dry-run")
    assert "models:/classifier/2 has no predictions for these images" in anew.stdout
    assert anew.stderr == worse.stderr, "evaluated anew, the champion says what it had said"
    weak = client_of(clone).get_model_version("classifier", 1)
    assert not decision(clone, weak, tmp_path)["promoted"], "the same model is the same version"

    back = pipeline(clone, run, "rollback")
    assert back.stdout == "rolled back: classifier version 1 is the champion again, instead of 2\n"
    assert champion(clone).version == 1
    none = pipeline(clone, run, "rollback")
    assert none.returncode == 1
    assert "is its first champion: there is no previous one" in none.stderr


KILLED_AT_THE_END = """
import os, signal
from mlflow import MlflowClient
from pipeline.__main__ import main
MlflowClient.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(["promote"])
"""


def test_two_at_once_are_judged_one_after_the_other(
    clone: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with their own folders and one store; a third one goes first."""
    other = tmp_path / "other"
    run(clone, "cp", "-r", str(clone), str(other))
    repro(other, run, cut=("cut: block2_conv1", "cut: none"))
    store = f"tracking.uri=sqlite:///{clone / 'mlflow.db'}"
    words = [sys.executable, "-m", "pipeline", "promote", "promote.margin=0.5", store]
    logs = [clone / "promote.log", other / "promote.log"]
    monkeypatch.chdir(tmp_path)
    with Registry(client_of(clone), "classifier").alone():
        both = []
        for log in logs:
            with log.open("w") as file:
                both.append(subprocess.Popen(words, cwd=log.parent, stdout=file, stderr=file))
        deadline = time.monotonic() + 120
        waiting = "another promotion or rollback is running: waiting"
        while not all(waiting in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.2)
    message = [
        (process.wait(120), log.read_text()) for process, log in zip(both, logs, strict=True)
    ]
    assert [code for code, _ in message] == [0, 0], message
    client = client_of(clone)
    versions = {item.version: item for item in client.search_model_versions("name = 'classifier'")}
    last = champion(clone)
    (first,) = [item for item in versions.values() if item.version != last.version]
    assert last.tags["champion.before"] == str(first.version)
    assert decision(clone, last, tmp_path)["champion"] == f"classifier/{first.version}"
    assert decision(clone, first, tmp_path)["champion"] is None
    with pytest.raises(InputError, match=f"is now version {last.version}"):
        Registry(client, "classifier").crown(first, first)
    client.delete_model_version("classifier", str(first.version))
    gone = pipeline(clone, run, "rollback")
    assert f"version {first.version} of classifier, the previous champion, was" in gone.stderr
    assert champion(clone).version == last.version


def test_through_a_server_of_mlflow(
    clone: Path, run: Run, tmp_path: Path, empty_store: Path
) -> None:
    """Database and files are outside the project."""
    with mlflow_server(tmp_path / "team", empty_store) as address:
        words = (f"tracking.uri={address}",)
        done = pipeline(clone, run, "promote", *words)
        assert done.returncode == 0, done.stderr
        assert "promoted: classifier version 1 is the champion; next: make serve\n" in done.stdout
        again = pipeline(clone, run, "promote", *words)
        assert again.stdout == "classifier version 1 already is this model\n"
        done = pipeline(clone, run, "rollback", *words)
        assert "error: version 1 of classifier is its first champion" in done.stderr
        image = clone / "docs/ui.png"
        message = [
            run(clone, sys.executable, "-m", "pipeline", "predict", str(image), *model, env=there)
            for model, there in (
                ((), {}),
                (("--model", "models:/classifier@champion"), {"MLFLOW_TRACKING_URI": address}),
            )
        ]
        assert message[0].stdout == message[1].stdout != ""
    assert client_of(clone).search_registered_models() == []


def test_a_champion_that_was_judged_on_other_images_is_evaluated_anew(
    clone: Path, run: Run, tmp_path: Path
) -> None:
    assert pipeline(clone, run, "promote").returncode == 0
    short = {"head": ("epochs: 100", "epochs: 10"), "top": ("epochs: 30", "epochs: 2")}
    repro(clone, run, seed=("seed: 0", "seed: 1"), **short)
    done = pipeline(clone, run, "promote", "promote.margin=0.5")
    assert done.returncode == 0, done.stderr
    assert "models:/classifier/1 has no predictions for these images" in done.stdout
    rule = decision(clone, champion(clone), tmp_path)["rules"][1]
    assert rule["result"] == "the champion was evaluated on these now"


def test_images_of_another_size_come_from_the_source(repository: Path) -> None:
    data = Manifest(repository / "outputs/prepare")
    rows = data.indices("test")[:300]
    classifier = Classifier(repository / "outputs/finetune/model.keras")
    expected = classifier.probabilities(data.images[rows])
    # Of square images: the same pixels, but decoded once more.
    data.decoding = Decoding(Fit.squash)
    actual = promotion._evaluate(digits.Config(), classifier, data, rows)
    np.testing.assert_array_equal(actual, expected)
    data.rows = [replace(row, path=f"added/{row.path}") for row in data.rows]
    with pytest.raises(InputError, match=r"300 of the test split are not in .*: put them there"):
        promotion._evaluate(digits.Config(), classifier, data, rows)


def test_a_class_that_only_one_of_them_knows() -> None:
    """The champion never predicts the new class."""
    classes = ["0", "1", "2"]
    chances = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    old = Predictions(("a", "b"), ["0", "2"], ["0", "2"], TASK, ["0", "2"], chances)
    expected = np.array([[0.9, 0, 0.1], [0.2, 0, 0.8]], np.float32)
    np.testing.assert_array_equal(old.of([True, True], classes).probabilities, expected)


def test_what_cannot_be_promoted(clone: Path, run: Run) -> None:
    done = pipeline(clone, run, "promote", "promote.metric=luck")
    assert "error: promote.metric must be auto or one of accuracy" in done.stderr
    done = pipeline(clone, run, "promote", "promote.name=a/b")
    assert "error: promote.name is not allowed by the MLflow registry, got 'a/b'" in done.stderr
    done = pipeline(clone, run, "promote", "tracking.enabled=false")
    assert "error: the registry needs MLflow, got tracking.enabled=false" in done.stderr
    done = pipeline(clone, run, "promote", "evaluate.split=val")
    assert "belongs to another split than evaluate.split=val" in done.stderr
    path = clone / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("cut: block2_conv1", "cut: none"))
    done = pipeline(clone, run, "promote")
    assert "finetune in params.yaml has changed since" in done.stderr
    path.write_text(text)
    lock = clone / "dvc.lock"
    before = lock.read_text()
    made = dialect.load(lock)["stages"]["evaluate"]["deps"]
    (md5,) = (dep["md5"] for dep in made if dep["path"] == "outputs/finetune")
    start, end = before.split("\n  evaluate:\n")
    lock.write_text(f"{start}\n  evaluate:\n{end.replace(md5, '0' * 32 + '.dir', 1)}")
    done = pipeline(clone, run, "promote")
    assert "evaluate was made before finetune: run dvc repro" in done.stderr
    lock.write_text(before)
    done = pipeline(clone, run, "rollback")
    assert "error: classifier has no champion: run promote first" in done.stderr
    with (clone / "outputs/finetune/classes.txt").open("a") as file:
        file.write("x\n")
    done = pipeline(clone, run, "promote")
    assert "can be promoted, but outputs/finetune differs" in done.stderr
    (clone / "dvc.lock").unlink()
    done = pipeline(clone, run, "promote")
    assert "outputs recorded in dvc.lock can be promoted: run dvc repro first" in done.stderr
    assert done.returncode == 1
