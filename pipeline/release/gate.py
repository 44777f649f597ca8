"""Decide if a candidate may replace the champion: rules, each with its number and verdict.

labels + probabilities of candidate and champion + settings -> verdicts. Independent of the
registry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.evaluation import facts, metrics, resampling
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.metrics import LOWER_IS_BETTER
from pipeline.evaluation.resampling import MAX_AREA_VALUES
from pipeline.sections import Promote

_MAX_NAMES = 5


@dataclass(frozen=True)
class Verdict:
    """Result of a rule.

    Attributes:
        rule: The requirement.
        result: The measured result.
        holds: True if the rule is fulfilled.
    """

    rule: str
    result: str
    holds: bool


def limits(
    config: Promote, labels: Labels, classes: list[str], candidate: NDArray[np.float32]
) -> list[Verdict]:
    """Apply the rules that do not involve the champion.

    Args:
        config: Section `promote`.
        labels: (N,) class indices of the test split.
        classes: K names.
        candidate: (N, K) probabilities.

    Raises:
        InputError: There is no such metric.
    """
    own = facts.gather(labels, candidate, "facts of the candidate")
    values = metrics.of(own, "ROC-AUC of the candidate")
    if config.metric not in values:
        raise InputError(
            f"promote.metric must be one of {', '.join(values)}, got {config.metric!r}"
        )
    verdicts = []
    if config.max_calibration_error is not None:
        error = values["calibration_error"]
        rule = f"calibration error at most {config.max_calibration_error:g}"
        verdicts.append(Verdict(rule, f"{error:.4f}", error <= config.max_calibration_error))
    if config.min_recall is not None:
        scores = metrics.per_class(labels, own.predicted, classes)
        present = [name for name in classes if scores[name]["support"]]
        lowest = min(present, key=lambda name: scores[name]["recall"])
        recall = scores[lowest]["recall"]
        rule = f"recall of each class at least {config.min_recall:g}"
        verdicts.append(Verdict(rule, f"{recall:.4f} ({lowest})", recall >= config.min_recall))
    return verdicts


def keeps_classes(candidate: list[str], champion: list[str]) -> Verdict:
    """Check that a candidate still has every class of the champion."""
    gone = sorted(set(champion) - set(candidate))
    added = len(set(candidate) - set(champion))
    gone_text = (
        f"{', '.join(gone[:_MAX_NAMES])}{' and others' if len(gone) > _MAX_NAMES else ''} "
        f"{'are' if len(gone) > 1 else 'is'} missing: set promote.name to keep both models"
    )
    added_text = f"all {len(champion)}" + (f", and {added} new" if added else "")
    return Verdict("the champion's classes are kept", gone_text if gone else added_text, not gone)


def not_worse(
    config: Promote,
    labels: Labels,
    candidate: NDArray[np.float32],
    champion: NDArray[np.float32],
    seed: int,
) -> Verdict:
    """Compare candidate and champion by a paired test.

    Args:
        config: Section `promote`.
        labels: (N,) class indices; only of classes that the champion has.
        candidate: (N, K) probabilities.
        champion: (N, K) probabilities for the same images.
        seed: Seed of the bootstrap.
    """
    own = facts.gather(labels, candidate, "facts of the candidate")
    before = facts.gather(labels, champion, "facts of the champion")
    return _not_worse(config, own, before, seed)


def _not_worse(config: Promote, candidate: Facts, champion: Facts, seed: int) -> Verdict:
    compared = resampling.compare(
        resampling.resample(champion, seed, "bootstrap of the champion"),
        resampling.resample(candidate, seed, "bootstrap of the candidate"),
    )
    gain = compared.differences[config.metric]
    if gain.low is None or gain.high is None:
        raise InputError(
            f"promote.metric={config.metric} has no interval with more than {MAX_AREA_VALUES:,} "
            f"probabilities ({len(candidate.labels):,} images of {candidate.classes:,} classes): "
            "choose another metric"
        )
    lower = config.metric in LOWER_IS_BETTER
    worst = gain.high if lower else -gain.low
    rule = f"{config.metric} at most {config.margin:g} worse than the champion's"
    measured = f"{gain.value:+.4f} (95 % CI {gain.low:+.4f} to {gain.high:+.4f})"
    return Verdict(rule, measured, bool(worst <= config.margin))
