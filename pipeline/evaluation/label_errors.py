"""Images whose label is probably wrong, in any split: to be looked at, not to be believed.

features + labels -> suspects. What a logistic regression says of images that it was not fitted
to is compared with their labels. Source: Northcutt, Jiang and Chuang 2021, Confident Learning:
Estimating Uncertainty in Dataset Labels; cleanlab is theirs.
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
IMAGES_MOST, VALUES_MOST = 20_000, 2_000_000
"""Images, and these times classes: with more, a regression takes minutes, and none are looked
for."""


@dataclass(frozen=True)
class Suspect:
    """An image that is probably mislabelled.

    Attributes:
        row: Of `Manifest.images`.
        suggested: Class index that suits it better.
        probability: Of that class.
        given: Probability of the label that it has.
    """

    row: int
    suggested: int
    probability: float
    given: float


def find(
    data: Manifest, features: NDArray[np.float32], *, seed: int, threads: int
) -> list[Suspect]:
    """Look through all images.

    Args:
        data: The prepared data set.
        features: (N, D) of all its images.
        seed: Of the folds.
        threads: Of the linear algebra.

    Returns:
        The most probable errors first.
    """
    from cleanlab.filter import find_label_issues

    # A class with one image leaves nothing to compare it with.
    counts = np.bincount(data.labels, minlength=len(data.classes))
    rows = np.flatnonzero(counts[data.labels] > 1)
    classes, labels = np.unique(data.labels[rows], return_inverse=True)
    if len(classes) < 2:
        return []
    if len(rows) > IMAGES_MOST or len(rows) * len(classes) > VALUES_MOST:
        print("mislabelled images are not looked for: there are too many images", flush=True)
        return []
    said = logistic.out_of_fold(np.asarray(features[rows]), labels, seed=seed, threads=threads)
    ranked = find_label_issues(labels, said, return_indices_ranked_by="self_confidence", n_jobs=1)
    found = []
    for place in ranked:
        suggested = int(said[place].argmax())
        if suggested == labels[place]:
            continue
        given = float(said[place, labels[place]])
        probability = float(said[place, suggested])
        found.append(Suspect(int(rows[place]), int(classes[suggested]), probability, given))
    return found


def doubted(
    suspects: Sequence[Suspect],
    data: Manifest,
    says: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> list[Suspect]:
    """Ask the fine-tuned model about suspects that it was not trained on; drop what it affirms.

    Args:
        suspects: What `find` found.
        data: The prepared data set.
        says: Rows -> (M, K) probabilities of the fine-tuned model.

    Returns:
        Those in train as they are, the others with the fine-tuned model's suggestion.
    """
    trained = set(data.indices("train").tolist())
    asked = [suspect for suspect in suspects if suspect.row not in trained]
    kept = {suspect.row: suspect for suspect in suspects if suspect.row in trained}
    if asked:
        rows = np.array([suspect.row for suspect in asked])
        for row, probabilities in zip(rows.tolist(), says(rows), strict=True):
            suggested, label = int(probabilities.argmax()), int(data.labels[row])
            if suggested != label:
                values = float(probabilities[suggested]), float(probabilities[label])
                kept[row] = Suspect(row, suggested, *values)
    return [kept[suspect.row] for suspect in suspects if suspect.row in kept]


def write(path: Path, data: Manifest, suspects: Sequence[Suspect]) -> None:
    """Write them, in the form that `prepare.exclude` takes."""
    lines = []
    for one in suspects:
        row, suggested = data.rows[one.row], data.classes[one.suggested]
        given, probability = f"{one.given:.4f}", f"{one.probability:.4f}"
        lines.append([row.path, row.label, row.split, given, suggested, probability])
    header = ["path", "label", "split", "probability", "suggested", "suggested_probability"]
    tables.write_table(path, header, lines)


def read(evaluated: Path) -> list[dict[str, str]]:
    """What `write` wrote, an image a line, by column.

    Args:
        evaluated: Output of evaluate.
    """
    return tables.read_records(evaluated / FILE)
