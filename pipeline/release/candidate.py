"""The candidate: the model of the current outputs, and its predictions for the test images.

outputs + dvc.lock -> `Candidate`. Changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import dialect
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.data.predictions import Predictions
from pipeline.data.tasks.facts import Labels
from pipeline.errors import InputError
from pipeline.evaluation import near_duplicates
from pipeline.serving.classifier import MODEL
from pipeline.storage.digests import digest
from pipeline.storage.outputs import ROOT, STAGES
from pipeline.tracking import logged_model, provenance

PREDICTIONS = ROOT / "evaluate" / predictions.FILE
LOCK, PARAMS = Path("dvc.lock"), Path("params.yaml")


@dataclass(frozen=True)
class Candidate:
    """The model of the current outputs, and its evaluation.

    Attributes:
        data: The prepared images.
        rows: (N,) evaluated rows.
        answers: Predictions for them.
        metrics: Metrics on them.
        identity: Tags that identify this model.
        split_sha256: Digest of the evaluated images and their labels.
        tags: All tags of its registry version, including the two above.
    """

    data: Manifest
    rows: Labels
    answers: Predictions
    metrics: dict[str, float]
    identity: dict[str, str]
    split_sha256: str
    tags: dict[str, str]


def read(split: str) -> Candidate:
    """Read the outputs, which must be those recorded in dvc.lock.

    Args:
        split: Split that was evaluated.

    Raises:
        InputError: They are not, or there are none.
    """
    stages = locked("promoted")
    data = Manifest(ROOT / "prepare")
    dropped = near_duplicates.dropped_paths(ROOT / "evaluate")
    every = data.indices(split)
    rows = every[[data.rows[row].path not in dropped for row in every]]
    saved = predictions.read(PREDICTIONS)
    if list(saved.paths) != [data.rows[row].path for row in rows]:
        raise InputError(
            f"{PREDICTIONS} belongs to another split than evaluate.split={split}: run dvc repro"
        )
    metrics = json.loads((ROOT / "evaluate" / "metrics.json").read_text())["fine_tuned"]
    identity = logged_model.identity(MODEL)
    split_sha256 = _split_sha256(data, rows)
    tags = {
        **provenance.git_tags(),
        **identity,
        "data.md5": stages[STAGES[0]],
        "split.sha256": split_sha256,
        **{f"dvc.lock.{stage}": md5 for stage, md5 in stages.items()},
        **{f"metrics.{name}": f"{value:.6f}" for name, value in metrics.items()},
    }
    return Candidate(data, rows, saved, metrics, identity, split_sha256, tags)


def is_other(stage: str) -> bool:
    """Check if a stage's output differs from dvc.lock, for example after a git checkout."""
    if not (LOCK.exists() and (ROOT / stage).is_dir()):
        return False
    made = dialect.load(LOCK)["stages"].get(stage)
    return made is not None and bool(made["outs"][0]["md5"] != digest(ROOT / stage))


def locked(verb: str) -> dict[str, str]:
    """Map each stage to its output's digest in dvc.lock, after checking disk and params.yaml.

    Args:
        verb: Past participle for error messages, such as `promoted`.

    Raises:
        InputError: There is no such output, or it differs.
    """
    only = f"only outputs recorded in dvc.lock can be {verb}"
    if not LOCK.exists():
        raise InputError(f"{only}: run dvc repro first")
    stages = dialect.load(LOCK)
    params = dialect.load(PARAMS)
    digests_by_stage = {}
    for stage in STAGES:
        made = stages["stages"].get(stage)
        if made is None or not (ROOT / stage).is_dir():
            raise InputError(
                f"only complete outputs can be {verb}, and {stage} has none: run dvc repro"
            )
        for name, value in made.get("params", {}).get(PARAMS.name, {}).items():
            if _setting(params, name) != value:
                raise InputError(f"{only}, but {name} in {PARAMS} has changed since: run dvc repro")
        digests_by_stage[stage] = made["outs"][0]["md5"]
        if digests_by_stage[stage] != digest(ROOT / stage):
            raise InputError(
                f"{only}, but outputs/{stage} differs: run dvc repro, or dvc checkout to restore "
                "them"
            )
    return digests_by_stage


def _setting(params: Any, name: str) -> Any:
    """Look up a setting by its full name; None if there is none."""
    for key in name.split("."):
        params = params.get(key) if isinstance(params, dict) else None
    return params


def _split_sha256(data: Manifest, rows: Labels) -> str:
    """Compute a digest of images and labels, in order."""
    listing = "".join(f"{data.rows[row].sha256} {data.rows[row].label}\n" for row in rows)
    return hashlib.sha256(listing.encode()).hexdigest()
