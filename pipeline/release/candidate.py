"""The candidate: the model of the present outputs, and what it says of the test images.

outputs + dvc.lock -> `Candidate`. Changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import dialect
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.evaluation import near_duplicates
from pipeline.evaluation.facts import Labels
from pipeline.serving.classifier import MODEL
from pipeline.storage.digests import digest
from pipeline.storage.outputs import ROOT, STAGES
from pipeline.tracking import logged_model, provenance

PREDICTIONS = ROOT / "evaluate" / predictions.FILE
LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")


@dataclass(frozen=True)
class Answers:
    """What a model says of images.

    Attributes:
        classes: K names.
        probabilities: (N, K).
    """

    classes: list[str]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Candidate:
    """The model of the present outputs, and how it was judged.

    Attributes:
        data: The prepared images.
        rows: (N,) which of them it was judged on.
        answers: Of these.
        metrics: Of these.
        identity: Tags that tell this model from others.
        split_sha256: Digest of the images judged on, and their labels.
        tags: All that its version in the registry says of it, the two above included.
    """

    data: Manifest
    rows: Labels
    answers: Answers
    metrics: dict[str, float]
    identity: dict[str, str]
    split_sha256: str
    tags: dict[str, str]


def read(split: str) -> Candidate:
    """Read the outputs, which must be those that dvc.lock records.

    Args:
        split: That evaluate judged on.

    Raises:
        InputError: They are not, or there are none.
    """
    locked = _locked()
    data = Manifest(ROOT / "prepare")
    dropped = near_duplicates.left_out(ROOT / "evaluate")
    every = data.indices(split)
    rows = every[[data.rows[row].path not in dropped for row in every]]
    said = predictions.read(PREDICTIONS)
    if list(said.paths) != [data.rows[row].path for row in rows]:
        raise InputError(
            f"{PREDICTIONS} is of another split than evaluate.split={split}: run dvc repro"
        )
    metrics = json.loads((ROOT / "evaluate" / "metrics.json").read_text())["fine_tuned"]
    identity = logged_model.identity(MODEL)
    split_sha256 = _split_sha256(data, rows)
    tags = {
        **provenance.git_tags(),
        **identity,
        "data.md5": locked[STAGES[0]],
        "split.sha256": split_sha256,
        **{f"dvc.lock.{stage}": md5 for stage, md5 in locked.items()},
        **{f"metrics.{name}": f"{value:.6f}" for name, value in metrics.items()},
    }
    answers = Answers(said.classes, said.probabilities)
    return Candidate(data, rows, answers, metrics, identity, split_sha256, tags)


def is_other(stage: str) -> bool:
    """Whether a stage's output is not the one that dvc.lock records, as after a git checkout."""
    if not (LOCK.exists() and (ROOT / stage).is_dir()):
        return False
    made = dialect.load(LOCK)["stages"].get(stage)
    return made is not None and bool(made["outs"][0]["md5"] != digest(ROOT / stage))


def _locked() -> dict[str, str]:
    """Stage -> digest of its output, as in dvc.lock and on the disk, made as params.yaml says."""
    if not LOCK.exists():
        raise InputError("promote registers what dvc.lock records, there is none: run dvc repro")
    stages = dialect.load(LOCK)
    params = dialect.load(PARAMS)
    digests_by_stage = {}
    for stage in STAGES:
        made = stages["stages"].get(stage)
        if made is None or not (ROOT / stage).is_dir():
            raise InputError(
                f"promote needs the outputs of all stages, {stage} has none: run dvc repro"
            )
        for name, value in made.get("params", {}).get(PARAMS.name, {}).items():
            if _setting(params, name) != value:
                raise InputError(
                    f"promote registers what dvc.lock records, {name} in {PARAMS} is another "
                    "since: run dvc repro"
                )
        digests_by_stage[stage] = made["outs"][0]["md5"]
        if digests_by_stage[stage] != digest(ROOT / stage):
            raise InputError(
                f"promote registers what dvc.lock records, outputs/{stage} is another: run "
                "dvc repro, or dvc checkout for what is recorded"
            )
    return digests_by_stage


def _setting(params: Any, name: str) -> Any:
    """The value of a setting by its full name; None if there is none."""
    for key in name.split("."):
        params = params.get(key) if isinstance(params, dict) else None
    return params


def _split_sha256(data: Manifest, rows: Labels) -> str:
    """Of the images in their order: which file, which label."""
    listing = "".join(f"{data.rows[row].sha256} {data.rows[row].label}\n" for row in rows)
    return hashlib.sha256(listing.encode()).hexdigest()
