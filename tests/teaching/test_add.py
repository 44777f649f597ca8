"""Adding images to a trained classifier: what changes, what does not, and what is refused."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from mlflow import MlflowClient
from PIL import Image

from pipeline.config import compose
from pipeline.data.manifest import Manifest
from pipeline.networks import model_file
from pipeline.serving.classifier import Classifier
from pipeline.storage.tables import read_records
from pipeline.teaching import addition
from pipeline.teaching.addition import Part

WORDS = [sys.executable, "-m", "pipeline"]


def added(run: Run, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(folder, *WORDS, "add", *words)


@pytest.fixture
def crosses(clone: Path) -> Path:
    """Fifty images of a class that the digits do not have."""
    rng, folder = np.random.default_rng(0), clone / "new" / "cross"
    folder.mkdir(parents=True)
    for number in range(50):
        pixels = rng.integers(0, 40, (8, 8))
        for place in range(8):
            pixels[place, place] = pixels[place, 7 - place] = rng.integers(180, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_new_class_is_added_promoted_and_predicted(crosses: Path, clone: Path, run: Run) -> None:
    before = (clone / "outputs/finetune/model.keras").read_bytes()
    done = added(run, clone, "new/cross")
    assert done.returncode == 0, done.stderr
    assert "50 files: 50 used, 0 quarantined, 0 left out" in done.stdout
    assert re.search(r"cross: \d+ of 15 recognised", done.stdout)
    assert "accuracy is worse" not in done.stdout
    assert (clone / "outputs/finetune/model.keras").read_bytes() == before
    folder = clone / "outputs/added"
    data = Manifest(folder)
    assert data.classes == [*"0123456789", "cross"]
    assert model_file.read_card(folder / "model.keras").classes == data.classes
    rows = read_records(folder / "predictions.csv")
    assert len(rows) == len(data.rows)
    old = read_records(clone / "outputs/evaluate/predictions.csv")
    assert [row["path"] for row in rows[: len(old)]] == [row["path"] for row in old]
    # The model file gives the answers that were written.
    classifier = Classifier(folder / "model.keras")
    answers = classifier.answers(np.asarray(data.images))
    assert answers.decided == [row["prediction"] for row in rows]
    expected = [float(row["probability_cross"]) for row in rows]
    assert answers.probabilities[:, -1] == pytest.approx(expected, abs=1e-5)
    assert answers.typicality == pytest.approx([float(r["typicality"]) for r in rows], abs=0.02)
    done = run(clone, *WORDS, "predict", "--model", "outputs/added/model.keras", "new/cross/1.png")
    assert "cross 0.9" in done.stdout, done.stdout + done.stderr
    done = run(clone, *WORDS, "promote", "--added")
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    version = client.get_model_version_by_alias("classifier", "champion")
    assert version.tags["model.md5"]
    words = ("export", "onnx", "--model", "outputs/added/model.keras", "--out", "exported")
    done = run(clone, *WORDS, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = client.search_runs(["1"], "attributes.run_name = 'add'")
    assert runs[0].data.metrics["images_added"] == 50
    assert runs[0].data.metrics["labels"] > 1000
    assert runs[0].data.tags["mlflow.parentRunId"]
    # The same command gives the same bytes, also without stored features.
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(clone, *WORDS, "cache", "clear").returncode == 0
    assert added(run, clone, "new/cross").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_what_occurs_on_one_image_decides_nothing(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    config = compose()
    base = addition.Base(config)
    old = base.images(())
    outputs, feature = old.outputs.copy(), len(base.card.classes)
    outputs[:, feature] = 0
    outputs[[row.split for row in old.rows].index("train"), feature] = 2e-5
    linear = addition.fit(base, Part(old.rows, outputs), Part([], outputs[:0]), config).linear
    assert np.abs(linear[0][0]).max() < 1e-3 < np.abs(linear[0][1:]).max()


def test_every_file_is_accounted_for(crosses: Path, clone: Path, run: Run) -> None:
    (crosses / "not.png").write_text("no image")
    shutil.copy(crosses / "0.png", crosses / "copy.png")
    done = added(run, clone, "new")
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert line.startswith("52 files: 50 used, 0 quarantined, 2 left out")
    assert "1 a copy of another" in line
    assert "not an image" in line


def test_a_csv_file_says_splits_and_old_classes(crosses: Path, clone: Path, run: Run) -> None:
    lines = [[f"cross/{n}.png", "cross", ("train", "test")[n % 2]] for n in range(40)]
    lines += [[f"cross/{n}.png", "7", "train"] for n in range(40, 50)]
    with (clone / "new/list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *lines])
    done = added(run, clone, "new/list.csv")
    assert done.returncode == 0, done.stderr
    splits = [row.split for row in Manifest(clone / "outputs/added").rows]
    assert set(splits) == {"test"}
    tested = [r.path for r in Manifest(clone / "outputs/added").rows if r.path.startswith("added/")]
    assert len(tested) == 20
    assert "replaces outputs/added" in added(run, clone, "new/list.csv").stdout


def test_what_is_in_the_data_is_not_added(clone: Path, run: Run) -> None:
    from pipeline.intake.sources import digits

    samples = [s for s in digits.images(digits.Config()) if s.label == "3"][:5]
    for label in ("3", "eight"):
        folder = clone / f"{label}s" / label
        folder.mkdir(parents=True)
        for number, sample in enumerate(samples):
            (folder / f"{number}.png").write_bytes(sample.content)
    done = added(run, clone, "3s")
    assert done.returncode == 1
    assert "no image can be added: 5 files: 0 used" in done.stderr
    assert "5 already in the data" in done.stderr
    done = added(run, clone, "eights")
    assert done.returncode == 1
    assert "in the data with another label" in done.stderr
    assert not (clone / "outputs/added").exists()


def test_the_same_pixels_are_the_same_image(crosses: Path, clone: Path, run: Run) -> None:
    """Invariant: no image that is tested is trained on, whatever file it is in."""
    for path in sorted(crosses.iterdir())[:20]:
        Image.open(path).save(crosses / f"again {path.name}", compress_level=0)
    tested = Manifest(clone / "outputs/prepare")
    places = tested.indices("test")[:10]
    folder = clone / "new/7"
    folder.mkdir()
    for place in places:
        Image.fromarray(tested.images[place]).save(folder / f"{place}.png", compress_level=0)
    done = added(run, clone, "new")
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[0]
    assert "80 files: 50 used" in line, line
    assert "20 a copy of another" in line
    assert "in the data" in line


def test_predictions_of_another_model_or_split_are_refused(
    crosses: Path, clone: Path, run: Run
) -> None:
    done = added(run, clone, "new", "evaluate.split=val")
    assert done.returncode == 1
    assert "run dvc repro" in done.stderr
    done = run(clone, *WORDS, "finetune", "finetune.epochs=1", "finetune.learning_rate=0.01")
    assert done.returncode == 0, done.stderr
    done = added(run, clone, "new")
    assert done.returncode == 1
    assert "outputs/evaluate belongs to another classifier" in done.stderr
    assert not (clone / "outputs/added").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["labelled"], "labelled has labels of its own: name labelled/labels.csv"),
        (["held_out.csv"], "images in train and test, got none of the 5 of 'cross' in train"),
        (["nothing.csv"], "1 files: 0 used, 0 quarantined, 1 left out: 1 without label"),
        (["few", "data.ignore=[few]"], "1 left out: 1 ignored by data.ignore"),
        (["nowhere"], "no such file or folder: nowhere"),
        (["empty"], "no images in empty"),
        (["few"], "a new class needs at least 3 images, got 1 of 'few'"),
    ],
)
def test_bad_input_is_one_line(clone: Path, run: Run, words: list[str], message: str) -> None:
    (clone / "empty").mkdir()
    (clone / "few").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(clone / "few/1.png")
    shutil.copytree(clone / "few", clone / "labelled")
    (clone / "labelled/labels.csv").write_text("path,label,time,seconds\n1.png,few,2026,1\n")
    lines = [f"many/{shade}.png,cross,test" for shade in range(5)]
    (clone / "held_out.csv").write_text("\n".join(["path,label,split", *lines]))
    (clone / "nothing.csv").write_text("path,label\nmany/0.png,\n")
    (clone / "many").mkdir()
    for shade in range(5):
        Image.fromarray(np.full((8, 8), 50 * shade, np.uint8)).save(clone / f"many/{shade}.png")
    done = added(run, clone, *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone / "outputs/added").exists()


def test_without_a_trained_classifier(project: Path, run: Run) -> None:
    done = added(run, project, "conf")
    assert done.returncode == 1
    assert "no classifier at outputs/finetune/model.keras to add images to" in done.stderr
    done = run(project, *WORDS, "promote", "--added")
    assert done.returncode == 1


def test_an_added_candidate_belongs_to_its_classifier(crosses: Path, clone: Path, run: Run) -> None:
    done = run(clone, *WORDS, "promote", "--added")
    assert "nothing was added" in done.stderr
    assert added(run, clone, "new").returncode == 0
    summary = clone / "outputs/added/summary.json"
    values = json.loads(summary.read_text())
    summary.write_text(json.dumps(values | {"added_to": "0" * 32}))
    done = run(clone, *WORDS, "promote", "--added")
    assert done.returncode == 1
    assert "trained again since images were added" in done.stderr
