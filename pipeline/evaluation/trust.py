"""How far the answers on judged images can be relied on.

forward pass + images -> probabilities on disk and `Trust`; `Trust` + labels -> what to say of it.
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
"""(N, d) where the judged images lie, in the order of predictions.csv."""


def judge(
    forward: Forward, judge: Judge, classes: int, images: Any, rows: Labels, path: Path
) -> Trust:
    """Push images through a classifier; their probabilities go to a file.

    Args:
        forward: Gives (N, K + D): probabilities, then features.
        judge: Of the same model file.
        classes: K.
        images: (., H, W, 3) uint8 RGB.
        rows: (N,) which of them.
        path: Of the file, (N, K) float32.
    """
    parts: list[Answers] = []
    sets: list[NDArray[np.int64]] = []
    with RowWriter(path, (classes,), np.float32) as file:
        for batch in forward.batches(images, rows, path.name):
            answers = judge(batch)
            file.append(answers.probabilities)
            if answers.labels is not None:
                sets += [np.flatnonzero(one) for one in answers.labels]
            parts.append(answers)
    return Trust(
        np.concatenate([one.typicality for one in parts]),
        np.concatenate([one.known for one in parts]),
        sets if parts[0].labels is not None else None,
        np.concatenate([one.positions for one in parts]),
    )


def summary(trust: Trust, facts: Facts, unknown: float, coverage: float) -> dict[str, Any]:
    """What is measured of it, as JSON.

    Args:
        trust: Of the judged images.
        facts: Likewise.
        unknown: Share of ordinary images that may be called unknown.
        coverage: Of the sets of labels.
    """
    known = trust.known
    found: dict[str, Any] = {
        "unknown": unknown,
        "known": float(known.mean()),
        "accuracy_known": _accuracy(facts.right[known]),
        "accuracy_unknown": _accuracy(facts.right[~known]),
    }
    if trust.sets is None:
        return found
    covered = [label in of for label, of in zip(facts.labels, trust.sets, strict=True)]
    sizes = [len(of) for of in trust.sets]
    return found | {
        "coverage": coverage,
        "covered": float(np.mean(covered)),
        "labels_a_image": float(np.mean(sizes)),
    }


def sentences(found: dict[str, Any]) -> list[str]:
    """`summary` in words."""
    share = 1 - found["known"]
    told = [f"unknown: {share:.1%} of the images (evaluated at serve.unknown={found['unknown']:g})"]
    if found["accuracy_unknown"] is not None and found["accuracy_known"] is not None:
        known, other = found["accuracy_known"], found["accuracy_unknown"]
        told[0] += f"; accuracy {known:.4f} of those known, {other:.4f} of the others"
    if "coverage" in found:
        told.append(
            f"sets of labels: {found['covered']:.1%} hold the true one (asked for "
            f"{found['coverage']:.0%}), {found['labels_a_image']:.2f} labels on average"
        )
    return told


def _accuracy(right: NDArray[np.bool_]) -> float | None:
    return float(right.mean()) if len(right) else None
