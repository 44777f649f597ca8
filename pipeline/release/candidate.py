"""The candidate: the model of the current outputs, and its predictions for the test images.

outputs + dvc.lock -> `Candidate`. Changes nothing.
"""

from __future__ import annotations

import hashlib
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
from pipeline.storage import tables
from pipeline.storage.digests import digest, file_md5
from pipeline.storage.outputs import ROOT, STAGES
from pipeline.tracking import logged_model, provenance

ADDED = ROOT / "added"
"""Output of `add`."""
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
        tags: All tags of its registry version, including `identity`.
        model: Its file.
        predictions: File of the answers.
    """

    data: Manifest
    rows: Labels
    answers: Predictions
    metrics: dict[str, float]
    identity: dict[str, str]
    tags: dict[str, str]
    model: Path
    predictions: Path


def read(split: str, added: bool = False) -> Candidate:
    """Read the outputs, or the result of `add` to them, which must be those recorded in dvc.lock.

    Raises:
        InputError: They are not, or there are none.
    """
    stages = locked("promoted")
    prepared, folder, model = ROOT / "prepare", ROOT / "evaluate", MODEL
    if added:
        prepared = folder = ADDED
        model = ADDED / MODEL.name
        _check_added()
    data = Manifest(prepared)
    dropped = near_duplicates.dropped_paths(ROOT / "evaluate")
    every = data.indices(split)
    rows = every[[data.rows[row].path not in dropped for row in every]]
    path = folder / predictions.FILE
    saved = predictions.read(path)
    if list(saved.paths) != [data.rows[row].path for row in rows]:
        raise InputError(
            f"{path} belongs to another split than evaluate.split={split}: run dvc repro"
        )
    metrics = tables.read_json(folder / "metrics.json")["fine_tuned"]
    identity = logged_model.identity(model)
    listing = "".join(f"{data.rows[row].sha256} {data.rows[row].label}\n" for row in rows)
    tags = {
        **provenance.git_tags(),
        **identity,
        "data.md5": stages[STAGES[0]],
        "split.sha256": hashlib.sha256(listing.encode()).hexdigest(),
        **{f"dvc.lock.{stage}": md5 for stage, md5 in stages.items()},
        **{f"metrics.{name}": f"{value:.6f}" for name, value in metrics.items()},
    }
    return Candidate(data, rows, saved, metrics, identity, tags, model, path)


def _check_added() -> None:
    """Stop at the result of `add` to another classifier.

    Raises:
        InputError: There is none, or the classifier was trained again since.
    """
    path = ADDED / "summary.json"
    if not path.exists():
        raise InputError("nothing was added: run python -m pipeline add IMAGES first")
    if tables.read_json(path)["added_to"] != file_md5(MODEL):
        raise InputError(
            "the classifier was trained again since images were added to it: run add again, or "
            "promote without --added"
        )


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
    digests_by_stage: dict[str, str] = {}
    for stage in STAGES:
        made = stages["stages"].get(stage)
        if made is None or not (ROOT / stage).is_dir():
            raise InputError(
                f"only complete outputs can be {verb}, and {stage} has none: run dvc repro"
            )
        others = {dep["path"]: dep["md5"] for dep in made.get("deps", [])}
        for earlier, md5 in digests_by_stage.items():
            if others.get(f"{ROOT}/{earlier}", md5) != md5:
                raise InputError(f"{only}, but {stage} was made before {earlier}: run dvc repro")
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
