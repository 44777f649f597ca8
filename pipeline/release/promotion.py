"""Promote the model of the current outputs to champion, if it passes the gate.

outputs + dvc.lock + champion -> a decision with its reasons, stored as an artifact; a version in
the registry; and, last of all, the alias.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.data.predictions import Predictions
from pipeline.data.tasks import digits
from pipeline.data.tasks.facts import Labels
from pipeline.errors import InputError, redacted
from pipeline.intake import sources
from pipeline.intake.judging import chunks
from pipeline.intake.sources import SourceConfig
from pipeline.release import candidate as candidates
from pipeline.release import gate, registry
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

    from pipeline.serving.classifier import Classifier

_CHUNK = 256


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
    others, how = _of_champion(config, client, champion, candidate)
    classes_kept = gate.keeps_classes(own, others)
    if not classes_kept.holds:  # they answer different questions
        return [classes_kept, *verdicts]
    shared = [set(own.task.names(label)) <= set(others.classes) for label in own.labels]
    basis = Verdict(f"both evaluated on the same {sum(shared)} images", how, True)
    pair = own.of(shared, own.classes), others.of(shared, own.classes)
    return [classes_kept, basis, gate.not_worse(config.promote, *pair, config.seed), *verdicts]


def _of_champion(
    config: Config, client: MlflowClient, champion: ModelVersion, candidate: Candidate
) -> tuple[Predictions, str]:
    """Return the champion's predictions for the candidate's images, and where they come from.

    Raises:
        InputError: The champion or the images cannot be read.
    """
    same = champion.tags.get("split.sha256") == candidate.tags["split.sha256"]
    if same and (stored := _stored(client, champion)):
        return stored, "stored predictions of the champion"
    from pipeline.serving.classifier import Classifier

    uri = f"models:/{champion.name}/{champion.version}"
    print(f"{uri} has no predictions for these images: evaluating it on them now")
    classifier = Classifier(registry.download(uri, config.tracking), allow_code=True)
    outputs = _evaluate(config.data, classifier, candidate.data, candidate.rows)
    card, own = classifier.card, candidate.answers
    answers = Predictions(
        own.paths, own.labels, classifier.decided(outputs), card.predicts, card.classes, outputs
    )
    return answers, "the champion was evaluated on these now"


def _stored(client: MlflowClient, champion: ModelVersion) -> Predictions | None:
    """Load the predictions stored with its promotion; None if they were removed."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        run = champion.tags["promotion.run"]
        try:
            file = client.download_artifacts(run, predictions.FILE, folder)
            return predictions.read(Path(file))
        except (MlflowException, OSError):
            return None


def _evaluate(
    source: SourceConfig, classifier: Classifier, data: Manifest, rows: Labels
) -> NDArray[np.float32]:
    """Predict (N, K), even if the classifier uses another image size than the prepared one."""
    card = classifier.card
    if (card.image_size, card.decoding) == (data.image_size, data.decoding):
        return classifier.probabilities(data.images, rows, "champion")
    places = {data.rows[row].path: place for place, row in enumerate(rows)}
    probabilities = np.full((len(rows), len(card.classes)), np.nan, np.float32)
    wanted = (image for image in sources.images(source) if image.path in places)
    for chunk in chunks(wanted, _CHUNK):
        decoded = np.stack([classifier.decode(image.read()) for image in chunk])
        probabilities[[places[image.path] for image in chunk]] = classifier.probabilities(decoded)
    if np.isnan(probabilities).any():
        raise InputError(
            "the champion decodes images in another way, for which it needs the files, but "
            f"{int(np.isnan(probabilities[:, 0]).sum())} of the test split are not in "
            f"{source.path}: put them there and run dvc repro"
        )
    return probabilities


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
    return f"{name} {digits(candidate.metrics[name])} on {len(candidate.rows)} images"


def _called(settings: Promote, version: ModelVersion) -> str:
    return f"{settings.name} version {version.version}"


def _report(
    settings: Promote, candidate: Candidate, champion: ModelVersion | None, verdicts: list[Verdict]
) -> None:
    print(f"candidate: {_scored(settings, candidate)}")
    print(f"champion: {_called(settings, champion) if champion else 'none yet'}")
    width = max((len(verdict.rule) for verdict in verdicts), default=0)
    for verdict in verdicts:
        mark = "pass" if verdict.holds else "FAIL"
        print(f"  {mark}  {verdict.rule:{width}}  {verdict.result}")
