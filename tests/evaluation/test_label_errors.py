"""Label errors: images with deliberately changed labels are found."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from pipeline.data.manifest import Row
from pipeline.data.tasks import Suspect, classification
from pipeline.evaluation import label_errors
from pipeline.storage import tables

SHARE = 0.05


def data_of(labels: np.ndarray) -> Any:
    rows = [Row(f"{n}.png", str(label), "train", "", 8, 8, "ok") for n, label in enumerate(labels)]
    classes = [str(k) for k in range(10)]
    return SimpleNamespace(rows=rows, targets=labels, classes=classes, task=classification.TASK)


def flipped(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    digits = load_digits()
    rng = np.random.default_rng(seed)
    labels = digits.target.astype(np.int64)
    wrong = rng.random(len(labels)) < SHARE
    changed = np.where(wrong, (labels + rng.integers(1, 10, len(labels))) % 10, labels)
    return digits.data.astype(np.float32), changed, wrong


def test_most_flipped_labels_are_found_and_few_others() -> None:
    features, labels, wrong = flipped(0)
    actual = label_errors.find(data_of(labels), features, seed=0, threads=2)
    rows = np.array([item.row for item in actual])
    precision, recall = wrong[rows].mean(), wrong[rows].sum() / wrong.sum()
    assert precision > 0.75
    assert recall > 0.8
    assert wrong[rows[:20]].mean() > 0.9, "the most probable first"
    again = label_errors.find(data_of(labels), features, seed=0, threads=2)
    assert again == actual


def test_a_class_with_one_image_is_no_suspect() -> None:
    features, labels, _ = flipped(1)
    labels[labels == 9] = 8
    labels[17] = 9
    actual = label_errors.find(data_of(labels), features, seed=0, threads=2)
    assert 17 not in [item.row for item in actual]


def test_the_csv_is_what_prepare_excludes(tmp_path: Path) -> None:
    _, labels, _ = flipped(0)
    data = data_of(labels)
    label_errors.write(tmp_path / label_errors.FILE, data, [Suspect(3, "4", 0.75, 0.0625)])
    (line,) = tables.read_records(tmp_path / label_errors.FILE)
    assert line["path"] == "3.png"
    assert line["suggested"] == "4"
    assert line["suggested_probability"] == "0.7500"
