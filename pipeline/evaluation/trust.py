"""Reliability of the answers for evaluated images.

forward pass + images -> probabilities on disk and `Trust`; `Trust` + labels -> a summary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.predictions import Trust
from pipeline.evaluation.facts import Facts, Labels
from pipeline.networks.forward import Forward
from pipeline.networks.trust.judging import Answers, Judge
from pipeline.storage.arrays import RowWriter

FILE = "trust.json"
POSITIONS = "positions.npy"
"""(N, d) reduced features of the evaluated images, in the order of predictions.csv."""


def judge(
    forward: Forward, judge: Judge, classes: int, images: Any, rows: Labels, path: Path
) -> Trust:
    """Run a classifier on images; probabilities go to a file.

    Args:
        forward: Returns (N, K + D): probabilities, then features.
        judge: Judge from the same model file.
        classes: K.
        images: (., H, W, 3) uint8 RGB.
        rows: (N,) rows of the images.
        path: File for the probabilities, (N, K) float32.
    """
    parts: list[Answers] = []
    sets: list[NDArray[np.int64]] = []
    with RowWriter(path, (classes,), np.float32) as file:
        for batch in forward.batches(images, rows, path.name):
            answers = judge(batch)
            file.append(answers.probabilities)
            if answers.labels is not None:
                sets += [np.flatnonzero(row) for row in answers.labels]
            parts.append(answers)
    return Trust(
        np.concatenate([part.typicality for part in parts]),
        np.concatenate([part.known for part in parts]),
        sets if parts[0].labels is not None else None,
        np.concatenate([part.positions for part in parts]),
    )


def summary(trust: Trust, facts: Facts, unknown: float, coverage: float) -> dict[str, Any]:
    """Summarise reliability for JSON.

    Args:
        trust: Reliability of the evaluated images.
        facts: Facts of the same images.
        unknown: Fraction of ordinary images that may be flagged as unknown.
        coverage: Target coverage of prediction sets.
    """
    known = trust.known
    values: dict[str, Any] = {
        "unknown": unknown,
        "known": float(known.mean()),
        "accuracy_known": _accuracy(facts.right[known]),
        "accuracy_unknown": _accuracy(facts.right[~known]),
    }
    if trust.sets is None:
        return values
    covered = [label in of for label, of in zip(facts.labels, trust.sets, strict=True)]
    sizes = [len(of) for of in trust.sets]
    return values | {
        "coverage": coverage,
        "covered": float(np.mean(covered)),
        "labels_per_image": float(np.mean(sizes)),
    }


def sentences(values: dict[str, Any]) -> list[str]:
    """Describe a summary in words."""
    flagged = 100 * (1 - values["known"])
    text = f"{flagged:.1f} % of the images were flagged as unlike the training images"
    if values["accuracy_unknown"] is not None and values["accuracy_known"] is not None:
        rest, others = 100 * values["accuracy_known"], 100 * values["accuracy_unknown"]
        text += f"; accuracy is {rest:.1f} % on the rest and {others:.1f} % on the flagged ones"
    if "coverage" not in values:
        return [f"{text}."]
    return [
        f"{text}.",
        f"{100 * values['covered']:.1f} % of the prediction sets contain the true label (target "
        f"{100 * values['coverage']:g} %), with {values['labels_per_image']:.2f} labels on "
        "average.",
    ]


def _accuracy(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None
