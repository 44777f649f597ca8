"""Several labels, and numbers: every command gives the same right answer."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from pipeline import Classifier
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.evaluation import summary
from pipeline.serving.classifier import Classifier as Model
from pipeline.storage.tables import read_records

COLOURS = {"blue": (0, 0, 160), "green": (0, 160, 0), "red": (160, 0, 0)}
STAGES = ("prepare", "extract_features", "train_head", "finetune", "evaluate", "report")
FRACTIONS = (
    *("prepare.train_per_class=null", "prepare.val_per_class=null"),
    *("prepare.train_fraction=0.6", "prepare.val_fraction=0.2"),
)


def drawn(folder: Path, count: int = 240) -> list[set[str]]:
    """Images with a bar of each colour that they are labelled with, brighter ones further down."""
    folder.mkdir()
    rng, labels = np.random.default_rng(0), []
    for number in range(count):
        own = {name for name in COLOURS if rng.random() < 0.5}
        pixels = rng.integers(0, 40, (16, 16, 3))
        for place, name in enumerate(COLOURS):
            if name in own:
                pixels[5 * place : 5 * place + 5] += np.array(COLOURS[name])
        Image.fromarray((pixels + 50 * number // count).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
        labels.append(own)
    return labels


def table(path: Path, header: list[str], lines: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])


def ran(run: Run, folder: Path, *words: str) -> str:
    done = run(folder, sys.executable, "-m", "pipeline", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def labels_project(project: Path) -> tuple[Path, list[str]]:
    labels = drawn(project / "pictures")
    lines = [
        [f"{n}.png", *(int(name in own) for name in COLOURS), f"scene {n // 2}"]
        for n, own in enumerate(labels)
    ]
    table(project / "pictures" / "labels.csv", ["path", *COLOURS, "scene"], lines)
    words = ["data.use=csv", "data.path=pictures/labels.csv", "data.group=scene"]
    return project, [*words, f"data.label_columns=[{','.join(COLOURS)}]", *FRACTIONS]


@pytest.fixture
def numbers_project(project: Path) -> tuple[Path, list[str]]:
    labels = drawn(project / "pictures")
    lines = [[f"{n}.png", f"{10 + 5 * len(own) + n / 240:.2f}"] for n, own in enumerate(labels)]
    table(project / "pictures" / "prices.csv", ["path", "price"], lines)
    words = ["data.use=csv", "data.path=pictures/prices.csv", "data.target=price", *FRACTIONS]
    return project, [*words, "prepare.calibration_fraction=0.2"]


def same_everywhere(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Check that predict and the Python API answer as evaluate did; returns the API's rows."""
    rows = read_records(folder / "outputs/evaluate/predictions.csv")
    files = [f"pictures/{row['path']}" for row in rows]
    table_of = list(csv.DictReader(ran(run, folder, "predict", "--csv", *files).splitlines()))
    lines = [
        json.loads(line)
        for line in ran(run, folder, "predict", "--json", *files).split("\n")
        if line
    ]
    monkeypatch.chdir(folder)
    answers = Classifier.load().predict(files).to_dict("records")
    for row, cells, line, answer in zip(rows, table_of, lines, answers, strict=True):
        assert {name: cells[name] for name in row if name in cells} == {
            name: value for name, value in row.items() if name not in ("path", "label")
        } | {"path": cells["path"]}
        assert line["prediction"] == answer["prediction"]
        assert line["typicality"] == answer["typicality"] == float(row["typicality"])
    return answers


def added(folder: Path) -> list[tuple[int, set[str]]]:
    """Further images, to be added."""
    return list(enumerate(drawn(folder / "more", 60)))


def insist_on_its_answers(folder: Path) -> None:
    """The model that `add` wrote answers as was recorded."""
    data = Manifest(folder / "outputs/added")
    saved = predictions.read(folder / "outputs/added" / predictions.FILE)
    answers = Model(folder / "outputs/added/model.keras").answers(np.asarray(data.images))
    assert answers.probabilities == pytest.approx(saved.probabilities, rel=1e-4, abs=1e-4)


def test_labels(
    labels_project: tuple[Path, list[str]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, words = labels_project
    printed = "".join(ran(run, folder, stage, *words) for stage in STAGES)
    assert "all labels of" in printed
    metrics = json.loads((folder / "outputs/evaluate/metrics.json").read_text())
    tuned = metrics["fine_tuned"]
    assert tuned["mean_average_precision"] > 0.9 > metrics["constant"]["mean_average_precision"]
    scores = json.loads((folder / "outputs/evaluate/per_class.json").read_text())
    assert list(scores) == list(COLOURS)
    assert (folder / "outputs/evaluate/plots/precision_recall.png").stat().st_size > 1000
    answers = same_everywhere(run, folder, monkeypatch)
    assert any(len(answer["prediction"]) > 1 for answer in answers)
    saved = predictions.read(folder / "outputs/evaluate" / predictions.FILE)
    assert saved.facts().values()["micro_f1"] == pytest.approx(tuned["micro_f1"])
    assert "onnx" in ran(run, folder, "export", "onnx", *words)
    lines = [
        [f"{n}.png", *(int(name in own) for name in COLOURS), f"scene {2 * n}"]  # half are new
        for n, own in added(folder)
    ]
    table(folder / "more" / "labels.csv", ["path", *COLOURS, "scene"], lines)
    printed = ran(run, folder, "add", "more/labels.csv", *words)
    before = {row.extra["scene"]: row.split for row in Manifest(folder / "outputs/prepare").rows}
    for row in Manifest(folder / "outputs/added").rows:
        if row.path.startswith("added/"):
            scene = f"scene {2 * int(row.path.removeprefix('added/').removesuffix('.png'))}"
            assert before.get(scene, "test") == "test", "images of a group have one split"
    recognised = dict(re.findall(r"(\w+): (\d+) of \d+ recognised", printed))
    tested = [
        (row["label"].split("|"), row["prediction"].split("|"))
        for row in read_records(folder / "outputs/added/predictions.csv")
        if row["path"].startswith("added/")
    ]
    for name in COLOURS:  # those of validation are counted, too
        hits = sum(name in own and name in decided for own, decided in tested)
        assert 0 < hits <= int(recognised[name]), printed
    insist_on_its_answers(folder)


def test_numbers(
    numbers_project: tuple[Path, list[str]], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, words = numbers_project
    words = [*words, "evaluate.metric=r2"]
    printed = "".join(ran(run, folder, stage, *words) for stage in STAGES)
    assert "prediction intervals contain the true value" in printed
    metrics = json.loads((folder / "outputs/evaluate/metrics.json").read_text())
    error = {name: own["mean_absolute_error"] for name, own in metrics.items()}
    assert error["fine_tuned"] < 0.5 * error["constant"]
    compared = summary.compared(folder / "outputs/evaluate")
    assert list(compared) == ["Fine-tuning", "Compared with a constant answer"]
    (verdict, *_) = compared["Compared with a constant answer"]["verdict"]
    assert verdict.startswith("mean absolute error is better")
    assert (folder / "outputs/evaluate/plots/residuals.png").stat().st_size > 1000
    answers = same_everywhere(run, folder, monkeypatch)
    assert all(answer["low"] < answer["prediction"] < answer["high"] for answer in answers)
    assert "onnx" in ran(run, folder, "export", "onnx", *words)
    lines = [[f"{n}.png", f"{10 + 5 * len(own) + n / 60:.2f}"] for n, own in added(folder)]
    table(folder / "more" / "prices.csv", ["path", "price"], lines)
    printed = ran(run, folder, "add", "more/prices.csv", *words)
    assert "new images that were not trained on: mean absolute error" in printed
    insist_on_its_answers(folder)
