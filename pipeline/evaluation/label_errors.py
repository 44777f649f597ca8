"""Find images with suspicious labels, in any split, for people to check.

features + labels -> suspects. Labels are compared with the predictions of a regression fitted to
other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Fit, Suspect
from pipeline.storage import tables

FILE = "label_errors.csv"
MAX_IMAGES, MAX_VALUES = 20_000, 2_000_000
"""Maximum number of images, and of images times classes: above, a regression takes minutes, and the
search is skipped."""


def find(data: Manifest, features: NDArray[np.float32], seed: int, threads: int) -> list[Suspect]:
    """Search all images, with (N, D) features; returns the most likely errors first."""
    if len(data.rows) > MAX_IMAGES or len(data.rows) * len(data.classes) > MAX_VALUES:
        print("too many images to look for wrong labels", flush=True)
        return []
    how = Fit(len(data.classes), seed, threads)
    return data.task.suspects(np.asarray(features), data.targets, data.classes, how)


def doubted(
    suspects: Sequence[Suspect],
    data: Manifest,
    predict: Callable[[NDArray[np.int64]], NDArray[np.float32]],
) -> list[Suspect]:
    """Drop suspects whose label the fine-tuned model confirms, if it was not trained on them.

    Suspects in train are unchanged, the others get the fine-tuned model's suggestion; `predict`
    returns its (M, K) outputs for rows.
    """
    trained = set(data.indices("train").tolist())
    others = [suspect for suspect in suspects if suspect.row not in trained]
    remaining = {suspect.row: suspect for suspect in suspects if suspect.row in trained}
    if others:
        rows = np.array([suspect.row for suspect in others])
        for suspect, output in zip(others, predict(rows), strict=True):
            target = data.targets[suspect.row]
            if doubt := data.task.contradicts(target, output, data.classes, suspect):
                remaining[suspect.row] = doubt
    return [remaining[suspect.row] for suspect in suspects if suspect.row in remaining]


def write(path: Path, data: Manifest, suspects: Sequence[Suspect]) -> None:
    """Write suspects in the form that `prepare.exclude` takes."""
    lines = []
    for suspect in suspects:
        row, suggested = data.rows[suspect.row], suspect.suggested
        own, probability = f"{suspect.label_probability:.4f}", f"{suspect.probability:.4f}"
        lines.append([row.path, row.label, row.split, own, suggested, probability])
    header = ["path", "label", "split", "probability", "suggested", "suggested_probability"]
    tables.write_table(path, header, lines)
