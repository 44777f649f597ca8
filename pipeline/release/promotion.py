"""Promote the model of the current outputs to champion, if it passes the gate.

outputs + dvc.lock + champion -> a decision with its reasons, stored as an artifact; a version in
the registry; and, last of all, the alias.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.errors import InputError, redacted
from pipeline.release import candidate as candidates
from pipeline.release import champion as champions
from pipeline.release import gate
from pipeline.release.candidate import LOCK, PARAMS, Candidate
from pipeline.release.gate import Verdict
from pipeline.release.registry import Registry
from pipeline.sections import Promote, Tracking
from pipeline.storage import derived
from pipeline.storage.outputs import ROOT
from pipeline.tracking import logged_model, runs, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def promote(config: Config, *, dry_run: bool = False, added: bool = False) -> None:
    """Decide and, unless this is a dry run, register and promote.

    Raises:
        InputError: The gate fails, there is nothing to promote, or the registry does not answer.
    """
    candidate = candidates.read(config.evaluate.split, added)
    client = _connect(config.tracking)
    with store.answering(config.tracking):
        _promote(config, client, candidate, dry_run)


def _promote(config: Config, client: MlflowClient, candidate: Candidate, dry_run: bool) -> None:
    settings: Promote = config.promote
    versions = Registry(client, settings.name)
    with nullcontext() if dry_run else versions.alone():
        champion = versions.champion()
        if champion is not None and _same(champion.tags, candidate):
            print(f"{_called(settings, champion)} already is this model")
            return
        verdicts = _judge(config, client, candidate, champion)
        holds = all(verdict.holds for verdict in verdicts)
        _report(settings, candidate, champion, verdicts)
        if dry_run:
            print(f"dry run: the model would {'' if holds else 'not '}be promoted")
        else:
            version = _register(config, client, versions, candidate, champion, verdicts)
            if holds:
                versions.crown(version, champion)
                print(f"promoted: {_called(settings, version)} is the champion; next: make serve")
    if not holds:
        failed = "; ".join(f"{v.rule}: {v.result}" for v in verdicts if not v.holds)
        stays = "the champion stays" if champion else "there is no champion"
        raise InputError(
            f"not promoted, {stays}: {failed}. More test images give narrower intervals; the "
            "limits are settings of section promote"
        )


def rollback(settings: Promote, tracking: Tracking) -> None:
    """Give the alias back to the previous champion.

    Raises:
        InputError: There is none.
    """
    client = _connect(tracking)
    with store.answering(tracking):
        old, new = Registry(client, settings.name).rollback()
    print(f"rolled back: {settings.name} version {new} is the champion again, instead of {old}")


def _connect(tracking: Tracking) -> MlflowClient:
    if not tracking.enabled:
        raise InputError(
            "the registry needs MLflow, got tracking.enabled=false: set tracking.enabled=true"
        )
    return store.connect(tracking)


def _judge(
    config: Config, client: MlflowClient, candidate: Candidate, champion: ModelVersion | None
) -> list[Verdict]:
    """Compare both models on the same images and classes, and apply the rules."""
    own = candidate.answers
    verdicts = gate.limits(config.promote, own)
    if champion is None:
        return verdicts
    others, how = champions.answers(config, client, champion, candidate)
    classes_kept = gate.keeps_classes(own, others)
    if not classes_kept.holds:  # they answer different questions
        return [classes_kept, *verdicts]
    shared = [set(own.task.names(label)) <= set(others.classes) for label in own.labels]
    basis = Verdict(f"both evaluated on the same {sum(shared)} images", how, True)
    pair = own.of(shared, own.classes), others.of(shared, own.classes)
    return [classes_kept, basis, gate.not_worse(config.promote, *pair, config.seed), *verdicts]


def _register(
    config: Config,
    client: MlflowClient,
    versions: Registry,
    candidate: Candidate,
    champion: ModelVersion | None,
    verdicts: list[Verdict],
) -> ModelVersion:
    """Store the decision in a run of its own, and the model in the registry."""
    decision = {
        "candidate": candidate.tags,
        "champion": f"{champion.name}/{champion.version}" if champion else None,
        "rules": [asdict(verdict) for verdict in verdicts],
        "promoted": all(verdict.holds for verdict in verdicts),
    }
    experiment = store.experiment(client, config.tracking)
    with runs.run_of_outputs("promote", client, experiment, config, candidate.tags) as run:
        model = logged_model.find(client, experiment, candidate.model)
        model = model or logged_model.log(client, run, candidate.model)
        if not _same(model.tags, candidate):
            raise InputError("the outputs changed during this promotion: run promote again")
        client.set_logged_model_tags(model.model_id, candidate.tags)
        for name, value in candidate.metrics.items():
            client.log_metric(run, name, value, model_id=model.model_id)
        client.log_dict(run, decision, "decision.json")
        client.log_artifact(run, str(candidate.predictions))
        for path in (LOCK, PARAMS):
            client.log_text(run, redacted(path.read_text(encoding="utf-8")), path.name)
        tags = {**candidate.tags, "promotion.run": run}
        cut = derived.value(ROOT / "finetune", "finetune.cut", config.finetune.cut)
        made = f"{config.data.use}, {config.backbone.use}, cut {cut}"
        return versions.register(model, tags, f"{made}: {_scored(config.promote, candidate)}")


def _same(tags: Mapping[str, str], candidate: Candidate) -> bool:
    return all(tags.get(key) == value for key, value in candidate.identity.items())


def _scored(settings: Promote, candidate: Candidate) -> str:
    name = gate.metric(settings, candidate.answers.task, candidate.metrics)
    return f"{name} {candidate.metrics[name]:.4f} on {len(candidate.rows)} images"


def _called(settings: Promote, version: ModelVersion) -> str:
    return f"{settings.name} version {version.version}"


def _report(
    settings: Promote,
    candidate: Candidate,
    champion: ModelVersion | None,
    verdicts: list[Verdict],
) -> None:
    print(f"candidate: {_scored(settings, candidate)}")
    print(f"champion: {_called(settings, champion) if champion else 'none yet'}")
    width = max((len(verdict.rule) for verdict in verdicts), default=0)
    for verdict in verdicts:
        mark = "pass" if verdict.holds else "FAIL"
        print(f"  {mark}  {verdict.rule:{width}}  {verdict.result}")
