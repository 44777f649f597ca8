"""Find images with suspicious labels, in any split, for people to check.

features + labels -> suspects. Labels are compared with the predictions of a logistic regression
fitted to other images. Source: Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating
Uncertainty in Dataset Labels; the authors wrote cleanlab.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Manifest
from pipeline.storage import tables
from pipeline.training import logistic

FILE = "label_errors.csv"
MAX_IMAGES, MAX_VALUES = 20_000, 2_000_000
"""Maximum number of images, and of images times classes: above, a regression takes minutes, and the
search is skipped."""


@dataclass(frozen=True)
class Suspect:
    """An image with a suspicious label.

    Attributes:
        row: Row of `Manifest.images`.
        suggested: Index of the class that fits better.
        probability: Probability of that class.
        label_probability: Probability of the present label.
    """

    row: int
    suggested: int
    probability: float
    label_probability: float


def find(
    data: Manifest, features: NDArray[np.float32], *, seed: int, threads: int
) -> list[Suspect]:
    """Search all images.

    Args:
        data: The prepared dataset.
        features: (N, D) of all its images.
        seed: Seed of the folds.
        threads: Threads for linear algebra.

    Returns:
        Suspects, the most likely errors first.
    """
    from cleanlab.filter import find_label_issues

    # A class with one image has nothing to compare it with.
    counts = np.bincount(data.labels, minlength=len(data.classes))
    rows = np.flatnonzero(counts[data.labels] > 1)
    classes, labels = np.unique(data.labels[rows], return_inverse=True)
    if len(classes) < 2:
        return []
    if len(rows) > MAX_IMAGES or len(rows) * len(classes) > MAX_VALUES:
        print("too many images to look for wrong labels", flush=True)
        return []
    predicted = logistic.out_of_fold(np.asarray(features[rows]), labels, seed=seed, threads=threads)
    ranked = find_label_issues(
        labels, predicted, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suspects = []
    for place in ranked:
        suggested = int(predicted[place].argmax())
        if suggested == labels[place]:
            continue
        own = float(predicted[place, labels[place]])
        probability = float(predicted[place, suggested])
        suspects.append(Suspect(int(rows[place]), int(classes[suggested]), probability, own))
    return suspects


def doubted(
    suspects: Sequence[Suspect],
    data: Manifest,
    predict: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> list[Suspect]:
    """Drop suspects whose label the fine-tuned model confirms, if it was not trained on them.

    Args:
        suspects: Result of `find`.
        data: The prepared dataset.
        predict: Rows -> (M, K) probabilities of the fine-tuned model.

    Returns:
        Suspects in train unchanged, the others with the fine-tuned model's suggestion.
    """
    trained = set(data.indices("train").tolist())
    others = [suspect for suspect in suspects if suspect.row not in trained]
    remaining = {suspect.row: suspect for suspect in suspects if suspect.row in trained}
    if others:
        rows = np.array([suspect.row for suspect in others])
        for row, probabilities in zip(rows.tolist(), predict(rows), strict=True):
            suggested, label = int(probabilities.argmax()), int(data.labels[row])
            if suggested != label:
                values = float(probabilities[suggested]), float(probabilities[label])
                remaining[row] = Suspect(row, suggested, *values)
    return [remaining[suspect.row] for suspect in suspects if suspect.row in remaining]


def write(path: Path, data: Manifest, suspects: Sequence[Suspect]) -> None:
    """Write suspects in the form that `prepare.exclude` takes."""
    lines = []
    for suspect in suspects:
        row, suggested = data.rows[suspect.row], data.classes[suspect.suggested]
        own, probability = f"{suspect.label_probability:.4f}", f"{suspect.probability:.4f}"
        lines.append([row.path, row.label, row.split, own, suggested, probability])
    header = ["path", "label", "split", "probability", "suggested", "suggested_probability"]
    tables.write_table(path, header, lines)


def read(evaluated: Path) -> list[dict[str, str]]:
    """Read the file from `write`, one mapping per suspect.

    Args:
        evaluated: Output of evaluate.
    """
    return tables.read_records(evaluated / FILE)
