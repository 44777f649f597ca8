"""The result of a run in a few sentences, for people who read nothing else.

outputs of evaluate and finetune -> what the model is, how good it is, and what would help most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.evaluation import label_curve, label_errors, trust
from pipeline.storage import tables

_SHARES = {0.25: "a quarter of the way", 0.5: "half way", 0.75: "three quarters of the way"}
_COMPARED = {
    "fine_tuned compared with head_only": "Fine-tuning",
    "fine_tuned compared with constant": "Compared with a constant answer",
}
_FEW = 50
_CLEARLY_WEAKER = 0.1
"""Difference in recall from which one class is worth more images than all together."""


def recipe(backbone: str, head: str, cut: str, tuned: Mapping[str, Any]) -> str:
    """Describe a training that begins at `cut`; `tuned` is the summary that fine-tuning wrote."""
    if cut in ("none", "None"):
        return f"{head} head on frozen {backbone} features"
    text = f"{backbone}, trains from {cut} on"
    if not tuned["best_epoch"]:
        return f"{text}; no epoch improved on the head-only weights, which were kept"
    if tuned["share"] in _SHARES:
        way = _SHARES[tuned["share"]]
        text += f"; weights are {way} from the head-only to the fine-tuned model"
    return text


def split(evaluated: Path, data: Manifest) -> str:
    """Return the split that was evaluated, from the output of evaluate."""
    first = predictions.read(evaluated / predictions.FILE).paths[0]
    return next(row.split for row in data.rows if row.path == first)


def headline(evaluated: Path, data: Manifest) -> str:
    """Say how good the model is, with an interval, from the output of evaluate."""
    images = len(np.load(evaluated / trust.POSITIONS, mmap_mode="r"))
    sentence = data.task.summary(tables.read_json(evaluated / "intervals.json"), images)
    return sentence.format(split(evaluated, data))


def sentences(evaluated: Path, data: Manifest, recipe: str) -> list[tuple[str, str]]:
    """Describe the model and its results, from the output of evaluate: title, sentence."""
    scores = tables.read_json(evaluated / "per_class.json")
    scores = {name: score for name, score in scores.items() if score["support"]}
    suspects = tables.read_records(evaluated / label_errors.FILE)
    lines = [("Model", recipe)]
    for title, comparison in compared(evaluated).items():
        lines.append((title, "; ".join(comparison["verdict"][:2])))
    if scores:
        weakest = min(scores, key=lambda name: scores[name]["recall"])
        support = scores[weakest]["support"]
        right = round(scores[weakest]["recall"] * support)
        sentence = f"{weakest}: {right} of {support:.0f} images are right (lowest recall)"
        none = "none, all images of every class are right"
        lines.append(("Weakest class", sentence if right < support else none))
    lines.append(("Suspicious labels", f"{len(suspects)} of {len(data.rows)} images"))
    if gains := label_curve.sentences(tables.read_json(evaluated / label_curve.FILE), data.task):
        lines.append(("More labels", "; ".join(gains[:2])))
    unknown = trust.sentences(tables.read_json(evaluated / trust.FILE), data.task)[0]
    lines.append(("Unknown images", unknown))
    images = len(np.load(evaluated / trust.POSITIONS, mmap_mode="r"))
    lines.append(("What would help most", _advice(scores, suspects, data, images)))
    return lines


def compared(evaluated: Path) -> dict[str, dict[str, Any]]:
    """Map title to comparison of the fine-tuned model with another, in the order of the report."""
    comparisons = tables.read_json(evaluated / "comparison.json")
    return {title: comparisons[key] for key, title in _COMPARED.items() if key in comparisons}


def _advice(
    scores: Mapping[str, Mapping[str, float]],
    suspects: Sequence[Mapping[str, str]],
    data: Manifest,
    images: int,
) -> str:
    if len(suspects) * 50 > len(data.rows):
        return "check the suspicious labels below: wrong ones cost accuracy and hide it"
    if not scores:
        return "more training images, or a larger backbone (init IMAGES --try ...)"
    labels = (data.rows[row].label for row in data.indices("train"))
    train = Counter(name for label in labels for name in data.task.names(label))
    weakest = min(scores, key=lambda name: scores[name]["recall"])
    supports = sum(score["support"] for score in scores.values())
    recall = sum(score["recall"] * score["support"] for score in scores.values()) / supports
    if recall == 1 or images < _FEW:
        return f"more test images: {images} cannot show how good the model is"
    if recall - scores[weakest]["recall"] >= _CLEARLY_WEAKER:
        return f"more images of {weakest}, which has {train[weakest]} training images"
    if suspects:
        return "check the suspicious labels below, then more training images of every class"
    return "more training images of every class, or a larger backbone (init IMAGES --try ...)"
