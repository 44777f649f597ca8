"""Reliability of the answers for evaluated images.

forward pass + images -> probabilities on disk and `Trust`; `Trust` + labels -> a summary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import tasks
from pipeline.data.predictions import Trust
from pipeline.data.tasks import Facts, Region, Targets, Task
from pipeline.data.tasks.facts import Floats, Labels
from pipeline.networks.forward import Forward
from pipeline.networks.trust.judging import Answers, Judge
from pipeline.storage.arrays import row_writer

FILE = "trust.json"
POSITIONS = "positions.npy"
"""(N, d) reduced features of the evaluated images, in the order of predictions.csv."""


def judge(
    forward: Forward, judge: Judge, classes: int, images: Any, rows: Labels, path: Path
) -> Trust:
    """Run a classifier, which returns (N, K + D), on images; (N, K) probabilities go to a file."""
    parts: list[Answers] = []
    regions: list[Region] = []
    with row_writer(path, (classes,), np.float32) as append:
        for batch in forward.batches(images, rows, path.name):
            answers = judge(batch)
            append(answers.probabilities)
            regions += answers.regions or ()
            parts.append(answers)
    return Trust(
        np.concatenate([part.typicality for part in parts]),
        np.concatenate([part.known for part in parts]),
        regions if parts[0].regions is not None else None,
        np.concatenate([part.positions for part in parts]),
        [label for part in parts for label in part.decided],
    )


def summary(
    trust: Trust, facts: Facts, task: Task, targets: Targets, unknown: float, coverage: float
) -> dict[str, Any]:
    """Summarise the reliability for images with these facts and targets, for JSON."""
    known, wrong = trust.known, facts.wrong
    each = wrong if tasks.lower_is_better(task.each) else 1 - wrong
    values: dict[str, Any] = {
        "unknown": unknown,
        "known": float(known.mean()),
        f"{task.each}_known": _mean(each[known]),
        f"{task.each}_unknown": _mean(each[~known]),
    }
    if trust.regions is None:
        return values
    covered = [task.covered(*pair) for pair in zip(targets, trust.regions, strict=True)]
    size = float(np.mean([task.sized(region) for region in trust.regions]))
    return values | {"coverage": coverage, "covered": float(np.mean(covered)), task.size_name: size}


def sentences(values: dict[str, Any], task: Task) -> list[str]:
    """Describe a summary in words."""
    flagged = 100 * (1 - values["known"])
    text = f"{flagged:.1f} % of the images were flagged as unlike the training images"
    pair = values[f"{task.each}_known"], values[f"{task.each}_unknown"]
    if None not in pair:
        rest, others = map(task.spoken, pair)
        name = task.each.replace("_", " ")
        text += f"; {name} is {rest} on the rest and {others} on the flagged ones"
    if "coverage" not in values:
        return [f"{text}."]
    return [
        f"{text}.",
        f"{100 * values['covered']:.1f} % of the {task.covers} (target "
        f"{100 * values['coverage']:g} %), with {task.size(values)} on average.",
    ]


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None
