"""Promote the model of the present outputs to champion, if the gate holds.

outputs + dvc.lock + champion -> a decision with its reasons, kept as an artifact; a version in
the registry; and, last of all, the alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.errors import InputError, redacted
from pipeline.release import candidate as candidates
from pipeline.release import champion as champions
from pipeline.release import gate
from pipeline.release.candidate import LOCK, PARAMS, PREDICTIONS, Answers, Candidate
from pipeline.release.gate import Verdict
from pipeline.release.registry import Registry
from pipeline.sections import Promote, Tracking
from pipeline.serving.classifier import MODEL
from pipeline.storage import derived
from pipeline.storage.outputs import ROOT
from pipeline.tracking import logged_model, runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def promote(config: Config, *, dry_run: bool = False) -> None:
    """Decide and, unless this is a dry run, register and promote.

    Args:
        config: The whole config.
        dry_run: Whether to show the decision alone.

    Raises:
        InputError: The gate does not hold, there is nothing to judge, or the registry is gone.
    """
    candidate = candidates.read(config.evaluate.split)
    client = _connect(config.tracking)
    with store.answering(config.tracking):
        _promote(config, client, candidate, dry_run)


def _promote(config: Config, client: MlflowClient, candidate: Candidate, dry_run: bool) -> None:
    settings: Promote = config.promote
    versions = Registry(client, settings.name)
    with nullcontext() if dry_run else versions.alone():
        champion = versions.champion()
        if champion is not None and _same(champion.tags, candidate):
            print(f"{_called(settings, champion)} is this model already")
            return
        verdicts = _judge(config, client, candidate, champion)
        holds = all(one.holds for one in verdicts)
        _tell(settings, candidate, champion, verdicts)
        if dry_run:
            print(f"dry run: it would {'' if holds else 'not '}be promoted")
        else:
            version = _register(config, client, versions, candidate, champion, verdicts)
            if holds:
                versions.crown(version, champion)
                print(f"promoted: {_called(settings, version)} is the champion")
    if not holds:
        failed = "; ".join(f"{one.rule}: {one.found}" for one in verdicts if not one.holds)
        stays = "the champion stays" if champion else "there is no champion"
        raise InputError(
            f"not promoted, {stays}: {failed}. More test images make intervals "
            "narrower; promote.margin and the limits are settings"
        )


def rollback(settings: Promote, tracking: Tracking) -> None:
    """Give the alias back to the previous champion.

    Raises:
        InputError: There is none.
    """
    client = _connect(tracking)
    with store.answering(tracking):
        old, new = Registry(client, settings.name).rollback()
    print(f"rolled back: {settings.name} version {new} is the champion, {old} was")


def _connect(tracking: Tracking) -> MlflowClient:
    if not tracking.enabled:
        raise InputError(
            "the registry is MLflow's, got tracking.enabled=false: set tracking.enabled=true"
        )
    return store.connect(tracking)


def _judge(
    config: Config, client: MlflowClient, candidate: Candidate, champion: ModelVersion | None
) -> list[Verdict]:
    """Bring both models' answers to the same images and classes, and apply the rules."""
    data, rows, classes = candidate.data, candidate.rows, candidate.answers.classes
    index = {name: place for place, name in enumerate(classes)}
    labels = np.array([index[data.rows[row].label] for row in rows])
    own = candidate.answers.probabilities
    verdicts = gate.limits(config.promote, labels, classes, own)
    if champion is None:
        return verdicts
    others, how = champions.answers(config, client, champion, candidate)
    kept = gate.keeps_classes(classes, others.classes)
    if not kept.holds:  # they do not answer the same question
        return [kept, *verdicts]
    shared = np.isin(labels, [index[name] for name in others.classes])
    judged = Verdict(f"both judged on the same {shared.sum()} images", how, True)
    before = _aligned(others, classes)
    compared = gate.not_worse(
        config.promote, labels[shared], own[shared], before[shared], config.seed
    )
    return [kept, judged, compared, *verdicts]


def _aligned(answers: Answers, classes: list[str]) -> NDArray[np.float32]:
    """(N, K) for other classes: 0 for those that the model does not know."""
    places = [classes.index(name) for name in answers.classes]
    ordered = np.zeros((len(answers.probabilities), len(classes)), np.float32)
    ordered[:, places] = answers.probabilities
    return ordered


def _register(
    config: Config,
    client: MlflowClient,
    versions: Registry,
    candidate: Candidate,
    champion: ModelVersion | None,
    verdicts: list[Verdict],
) -> ModelVersion:
    """Keep the decision in a run of its own, and the model in the registry."""
    decision = {
        "candidate": candidate.tags,
        "champion": f"{champion.name}/{champion.version}" if champion else None,
        "rules": [asdict(one) for one in verdicts],
        "promoted": all(one.holds for one in verdicts),
    }
    experiment = store.experiment(client, config.tracking)
    of_outputs = runs.run_of_outputs
    with of_outputs("promote", client, experiment, config, candidate.tags) as run:
        model = logged_model.find(client, experiment, MODEL)
        model = model or logged_model.log(client, run, MODEL)
        if not _same(model.tags, candidate):
            raise InputError("the outputs became others during this promotion: run promote again")
        client.set_logged_model_tags(model.model_id, candidate.tags)
        for name, value in candidate.metrics.items():
            client.log_metric(run, name, value, model_id=model.model_id)
        client.log_dict(run, decision, "decision.json")
        client.log_artifact(run, str(PREDICTIONS))
        for path in (LOCK, PARAMS):
            client.log_text(run, redacted(path.read_text(encoding="utf-8")), path.name)
        tags = {**candidate.tags, "promotion.run": run}
        return versions.register(model, tags, _described(config, candidate))


def _same(tags: Mapping[str, str], candidate: Candidate) -> bool:
    return all(tags.get(key) == value for key, value in candidate.identity.items())


def _described(config: Config, candidate: Candidate) -> str:
    cut = derived.value(ROOT / "finetune", "finetune.cut", config.finetune.cut)
    made = f"{config.data.use}, {config.backbone.use}, cut {cut}"
    return f"{made}: {_scored(config.promote, candidate)}"


def _scored(settings: Promote, candidate: Candidate) -> str:
    value = candidate.metrics.get(settings.metric, float("nan"))
    return f"{settings.metric} {value:.4f} on {len(candidate.rows)} images"


def _called(settings: Promote, version: ModelVersion) -> str:
    return f"{settings.name} version {version.version}"


def _tell(
    settings: Promote,
    candidate: Candidate,
    champion: ModelVersion | None,
    verdicts: list[Verdict],
) -> None:
    print(f"candidate: {_scored(settings, candidate)}")
    print(f"champion: {_called(settings, champion) if champion else 'none yet'}")
    width = max((len(one.rule) for one in verdicts), default=0)
    for one in verdicts:
        print(f"  {'holds' if one.holds else 'FAILS'}  {one.rule:{width}}  {one.found}")
