"""Add images of old or new classes to the trained classifier, in seconds.

Its layers stay as they are, and its head is fitted anew to all training images. The result in
outputs/added is a candidate that predict, serve and promote take.

    python -m pipeline add photos/wasps
"""

import argparse
from dataclasses import replace
from pathlib import Path

from pipeline.config import Config
from pipeline.data import names, predictions
from pipeline.data.predictions import Predictions
from pipeline.data.tasks import Task
from pipeline.data.tasks.facts import Floats
from pipeline.errors import InputError
from pipeline.evaluation import resampling
from pipeline.evaluation.resampling import Comparison
from pipeline.intake import layout, sources
from pipeline.intake.account import Account
from pipeline.intake.sources import Sample
from pipeline.release.candidate import ADDED
from pipeline.serving.classifier import MODEL
from pipeline.setup import source
from pipeline.storage.outputs import ROOT
from pipeline.teaching import addition, opening, pool
from pipeline.teaching.addition import Base, Head, Part
from pipeline.tracking import logged_model

_WORTH = 0.2
"""New images per training image from which on fine-tuning with them is worth its time."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images."""
    parser.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        help="folder of class folders, folder of one class, csv file or archive",
    )


def run(config: Config, options: argparse.Namespace) -> None:
    """Fit the head, write the candidate, and say what changed.

    Raises:
        InputError: There is no trained classifier, or nothing new to add.
    """
    from pipeline.teaching import candidate

    base = Base(config)
    left_out: list[Sample] = []
    samples = _listed(config, options.images, base.data.task, left_out)
    if left_out and not samples:
        raise InputError(f"no image can be added: {Account(0, 0, left_out, ())}")
    read = base.read(samples)
    new, account = addition.added(base, read, left_out, config)
    print(account)
    path = ROOT / "evaluate" / predictions.FILE
    if not path.exists():
        raise InputError(f"no predictions at {path}: run dvc repro first")
    before = predictions.read(path)
    old = base.images(before.paths)
    addition.check_same(before, old.of(str(config.evaluate.split)))
    if ADDED.exists():
        print(f"replaces {ADDED}, what was added before: add all new images together to keep both")
    head = addition.fit(base, old, new, config)
    files = dict(zip(read.digests, read.samples, strict=True))
    after, made = candidate.write(base, head, old, new, files, config)
    gain = _compared(config, before, after, head.classes)
    metrics = _report(gain, head, new, len(old.of("train").rows), made.thresholds)
    _log(config, metrics, len(new.rows), len(old.rows) + len(new.rows))
    print(f"candidate: {ADDED / MODEL.name}; next: python -m pipeline promote --added")


def _log(config: Config, metrics: dict[str, float], added: int, labels: int) -> None:
    """Log the candidate as a run below that of the classifier it was added to."""
    if not config.tracking.enabled:
        return
    from pipeline.tracking import runs, store

    client = store.connect(config.tracking)
    with store.answering(config.tracking):
        experiment = store.experiment(client, config.tracking)
        tags = logged_model.identity(ADDED / MODEL.name)
        with runs.run_of_outputs("add", client, experiment, config, tags) as run:
            for name, value in {**metrics, "images_added": added, "labels": labels}.items():
                client.log_metric(run, name, value)
            client.log_artifact(run, str(ADDED / "metrics.json"))


def _listed(config: Config, path: Path, task: Task, left_out: list[Sample]) -> list[Sample]:
    """List the new images with their labels."""
    inside = [p for p in path.iterdir() if not layout.is_system(p)] if path.is_dir() else []
    if path.is_dir() and (any(map(layout.is_image, inside)) or not any(p.is_dir() for p in inside)):
        if (path / opening.NAME).exists():
            raise InputError(
                f"{path} has labels of its own: name {path / opening.NAME} to add what it labels"
            )
        if not task.has_strata:
            raise InputError(
                f"a folder says no {task.noun}: name a csv file like {config.data.path}, with the "
                "same columns"
            )
        label = names.label(path.absolute().name)
        listed = pool.listed(path, path.parent / opening.NAME)
        named = (replace(sample, label=label) for sample in listed)
        every = list(sources.chosen(named, config.data, by_label=True))
        left_out += [sample for sample in every if sample.left_out == sources.IGNORED]
        return [sample for sample in every if sample.left_out != sources.IGNORED]
    settings = source.recognised(path, [])
    if config.data.kind == settings["use"] == "csv":  # the same columns
        data = replace(config.data, path=settings["path"])
    else:
        data = source.config_of(settings)
        data = replace(data, labels=config.data.labels, ignore=config.data.ignore)
    made = sources.task(data)
    if made.value != task.name:
        raise InputError(
            f"the classifier is for {task.name}, but {path} is for {made.value}: "
            f"{made.reason.partition(';')[0]}"
        )
    return list(sources.images(data, "list", left_out))


def _compared(
    config: Config, before: Predictions, after: Predictions, classes: list[str]
) -> Comparison:
    """Compare both classifiers on the test images of old classes."""
    count = len(before.paths)
    old = [place < count for place in range(len(after.paths))]
    pair = before.of([True] * count, classes), after.of(old, classes)
    first, second = (resampling.resample(own.facts(), config.seed) for own in pair)
    return resampling.compare(first, second, before.task.headline)


def _report(
    gain: Comparison, head: Head, new: Part, trained: int, thresholds: Floats
) -> dict[str, float]:
    """Say what changed for old images and how good new ones are; returns metrics of the latter."""
    print("test images of before:")
    for sentence in gain.verdict:
        print(f"  {sentence}")
    held_out = new.of("val") + new.of("test")
    if not held_out.rows:
        return {}
    answers = head.outputs(held_out)[:, : len(head.classes)]
    decided = head.task.decided(answers, thresholds, head.classes)
    chosen = head.task.targets(decided, head.classes)
    facts = head.task.facts(head.targets(held_out), answers, chosen)
    # Where only a few classes occur, no metric of all classes means anything.
    values = {name: facts.values()[name] for name in (head.task.each, *head.task.headline[1:])}
    listed = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in values.items())
    print(f"{len(held_out.rows)} new images that were not trained on: {listed}")
    for name, scores in facts.scores(head.classes).items():
        if support := int(scores["support"]):
            hits = round(scores["recall"] * support)
            low, high = (100 * end for end in resampling.proportion(hits, support))
            print(f"  {name}: {hits} of {support} recognised (95 % CI {low:.0f} to {high:.0f} %)")
    share = len(new.of("train").rows) / trained
    if share > _WORTH:
        print(
            f"{share:.0%} more training images: fine-tuning with them is worth its time; put them "
            "beside the others and run make repro"
        )
    return {f"added_{name}": value for name, value in values.items()}
