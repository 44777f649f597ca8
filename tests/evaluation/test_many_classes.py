"""Many classes: the same numbers, in little memory, with files that people can open."""

import csv
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from pipeline.data import predictions
from pipeline.data.tasks import classification, facts, figures
from pipeline.evaluation import resampling

pytestmark = pytest.mark.xdist_group("many_classes")

CLASSES, IMAGES = 1_000, 3_000


@pytest.fixture(scope="module")
def some() -> tuple[facts.Labels, Any]:
    rng = np.random.default_rng(0)
    labels = rng.integers(CLASSES, size=IMAGES)
    values = rng.random((IMAGES, CLASSES), np.float32)
    values[np.arange(IMAGES), labels] += rng.random(IMAGES, np.float32)
    return labels, values / values.sum(axis=1, keepdims=True)


def test_numbers_are_those_of_scikit_learn(some: tuple[facts.Labels, Any]) -> None:
    labels, probabilities = some
    actual = facts.gather(labels, probabilities).values()
    exact = facts.gather(labels, np.asarray(probabilities, np.float64)).values()
    predicted, every = probabilities.argmax(axis=1), np.arange(CLASSES)
    assert actual["accuracy"] == sk.accuracy_score(labels, predicted)
    f1 = sk.f1_score(labels, predicted, labels=every, average="macro", zero_division=0)
    assert actual["macro_f1"] == pytest.approx(f1, abs=1e-12)
    top = sk.top_k_accuracy_score(labels, probabilities, k=5, labels=every)
    assert actual["top_5_accuracy"] == pytest.approx(top)
    scores = probabilities.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)
    present = [k for k in every if (labels == k).any()]
    areas = [sk.roc_auc_score(labels == k, scores[:, k]) for k in present]
    assert actual["roc_auc"] == pytest.approx(np.mean(areas), abs=1e-9)
    assert actual["roc_auc"] == pytest.approx(exact["roc_auc"], abs=1e-9)


def most_memory(path: Path, images: int) -> int:
    rng = np.random.default_rng(0)
    on_disk = np.lib.format.open_memmap(path, "w+", np.float32, shape=(images, 1_000))
    for start in range(0, images, 1_000):
        on_disk[start : start + 1_000] = rng.random((1_000, 1_000), np.float32)
    labels = rng.integers(1_000, size=images)
    tracemalloc.start()
    gathered = facts.gather(labels, np.load(path, mmap_mode="r"))
    gathered.roc_auc(np.ones((1, images)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    few, many = (
        most_memory(tmp_path / "few.npy", 10_000),
        most_memory(tmp_path / "many.npy", 40_000),
    )
    assert many < few + 30_000 * 1_000, "a kilobyte an image, a quarter of its probabilities"


def test_roc_auc_has_no_interval(
    some: tuple[facts.Labels, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "DRAWS", 20)
    gathered = facts.gather(*some)
    first = resampling.resample(gathered, 0)
    spread = resampling.intervals(first)
    assert spread["roc_auc"].low is None
    assert spread["accuracy"].low is not None
    compared = resampling.compare(first, first, ("accuracy", "log_loss", "roc_auc"))
    assert len(compared.verdict) == 2, "nothing is said of what has no interval"
    assert resampling.as_json(spread)["roc_auc"]["high"] is None


@pytest.mark.parametrize("classes", [3, 20, 21, 400])
def test_predictions_come_back_as_they_were(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(classes)
    values = rng.random((50, classes), np.float32)
    names = [f"={place}" for place in range(classes)]  # which a spreadsheet would run
    labels = rng.integers(classes, size=50)
    rows = [SimpleNamespace(path=f"p{n}", label=names[k]) for n, k in enumerate(labels)]
    data: Any = SimpleNamespace(classes=names, rows=rows, task=classification.TASK)
    flags = rng.random(50) < 0.9
    sets = [np.flatnonzero(row > 0.7) for row in values]
    decided = classification.TASK.decided(values, np.zeros(0), names)
    trust = predictions.Trust(rng.random(50), flags, sets, np.zeros((50, 2)), decided)
    predictions.write(tmp_path, data, np.arange(50), values, trust)
    first = (tmp_path / predictions.FILE).read_bytes()
    actual = predictions.read(tmp_path / predictions.FILE)
    assert actual.paths == tuple(row.path for row in rows)
    assert actual.labels == [row.label for row in rows]
    assert actual.decided == decided
    assert actual.classes == names
    assert (actual.probabilities == values).all()
    predictions.write(tmp_path, data, np.arange(50), values, trust)
    assert (tmp_path / predictions.FILE).read_bytes() == first
    with (tmp_path / predictions.TABLE).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 50
    assert [row["known"] for row in table] == ["yes" if item else "no" for item in flags]
    assert [len(row["labels"].split(" | ")) for row in table] == [max(1, len(s)) for s in sets]
    if classes <= predictions.COLUMNS_MOST:
        columns = classification.TASK.columns(names)
        written = [[float(row[name]) for name in columns] for row in table]
        assert (np.array(written, np.float32) == values).all()
    else:
        assert len(table[0]) == 3 + 3 + 2 * 5
        best = np.sort(values, axis=1)[:, ::-1][:, :5]
        message = [[float(row[f"probability_{place}"]) for place in range(1, 6)] for row in table]
        assert (np.array(message, np.float32) == best).all()
        assert table[7]["class_1"] == table[7]["prediction"]


def test_a_confusion_matrix_of_some_classes(tmp_path: Path) -> None:
    labels, predicted = np.array([0, 1, 2, 2, 9]), np.array([0, 2, 2, 1, 9])
    subset = np.array([1, 2])
    assert facts.confusion(labels, predicted, subset).tolist() == [[0, 1], [1, 1]]
    assert facts.confusion(labels, predicted, np.array([5])).tolist() == [[0]]
    figures.confusion_matrix(tmp_path / "c.png", np.eye(2, dtype=int), ["a", "b"], "2 of 300")
    assert (tmp_path / "c.png").stat().st_size > 1000
