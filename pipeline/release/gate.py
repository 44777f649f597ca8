"""Decide if a candidate may replace the champion: rules, each with its number and verdict.

predictions of candidate and champion + settings -> verdicts. Independent of the registry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.data.predictions import Predictions
from pipeline.data.tasks import Task, digits, lower_is_better
from pipeline.data.tasks.facts import MAX_AREA_VALUES
from pipeline.errors import InputError
from pipeline.evaluation import resampling
from pipeline.sections import Promote
from pipeline.settings import is_auto

_MAX_NAMES = 5


@dataclass(frozen=True)
class Verdict:
    """Result of a rule: the requirement, what was measured, and if it is fulfilled."""

    rule: str
    result: str
    holds: bool


def limits(config: Promote, candidate: Predictions) -> list[Verdict]:
    """Apply the rules that do not involve the champion.

    Raises:
        InputError: There is no such metric.
    """
    own, classes = candidate.facts("facts of the candidate"), candidate.classes
    values = own.values("candidate")
    metric(config, candidate.task, values)
    verdicts, absent = [], f"does not apply: {candidate.task.noun} are predicted"
    if config.max_calibration_error is not None:
        error = values.get("calibration_error")
        rule = f"calibration error at most {config.max_calibration_error:g}"
        holds = error is None or error <= config.max_calibration_error
        verdicts.append(Verdict(rule, absent if error is None else f"{error:.4f}", holds))
    if config.min_recall is not None:
        scores = own.scores(classes)
        present = [name for name in scores if scores[name]["support"]]
        lowest = min(present, key=lambda name: scores[name]["recall"], default="")
        recall = scores[lowest]["recall"] if lowest else 1.0
        rule = f"recall of each class at least {config.min_recall:g}"
        result = f"{recall:.4f} ({lowest})" if lowest else absent
        verdicts.append(Verdict(rule, result, recall >= config.min_recall))
    return verdicts


def keeps_classes(candidate: Predictions, champion: Predictions) -> Verdict:
    """Check that a candidate predicts the same, and still has every class of the champion."""
    if candidate.task.name != champion.task.name:
        change = f"{champion.task.name} became {candidate.task.name}"
        return Verdict("the task is kept", f"{change}: set promote.name to keep both models", False)
    gone = sorted(set(champion.classes) - set(candidate.classes))
    added = len(set(candidate.classes) - set(champion.classes))
    gone_text = (
        f"{', '.join(gone[:_MAX_NAMES])}{' and others' if len(gone) > _MAX_NAMES else ''} "
        f"{'are' if len(gone) > 1 else 'is'} missing: set promote.name to keep both models"
    )
    added_text = f"all {len(champion.classes)}" + (f", and {added} new" if added else "")
    return Verdict("the champion's classes are kept", gone_text if gone else added_text, not gone)


def metric(config: Promote, task: Task, values: Iterable[str]) -> str:
    """Return the metric that decides.

    Raises:
        InputError: There is no such metric among the values.
    """
    chosen = task.headline[0] if is_auto(config.metric) else config.metric
    if chosen not in values:
        raise InputError(
            f"promote.metric must be auto or one of {', '.join(values)}, got {config.metric!r}"
        )
    return chosen


def not_worse(config: Promote, candidate: Predictions, champion: Predictions, seed: int) -> Verdict:
    """Compare candidate and champion by a paired test.

    Both predict the same images and classes, which only show what the champion knows.
    """
    before = resampling.resample(champion.facts(), seed, "bootstrap of the champion")
    after = resampling.resample(candidate.facts(), seed, "bootstrap of the candidate")
    name = metric(config, candidate.task, after.values)
    gain = resampling.compare(before, after, ()).differences[name]
    if gain.low is None or gain.high is None:
        raise InputError(
            f"promote.metric={name} has no interval with more than {MAX_AREA_VALUES:,} "
            f"probabilities ({len(candidate.paths):,} images of {len(candidate.classes):,} "
            "classes): choose another metric"
        )
    worst = gain.high if lower_is_better(name) else -gain.low
    rule = f"{name} at most {config.margin:g} worse than the champion's"
    value, low, high = (digits(end, "+.4f") for end in (gain.value, gain.low, gain.high))
    measured = f"{value} (95 % CI {low} to {high})"
    return Verdict(rule, measured, bool(worst <= config.margin))
