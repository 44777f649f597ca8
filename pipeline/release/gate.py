"""Whether a candidate may take the champion's place: rules, each with its number and verdict.

labels + probabilities of candidate and champion + settings -> verdicts. Knows no registry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.evaluation import facts, metrics, resampling
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.metrics import LOWER_IS_BETTER
from pipeline.evaluation.resampling import AREAS_MOST
from pipeline.sections import Promote

_NAMED = 5


@dataclass(frozen=True)
class Verdict:
    """What a rule says.

    Attributes:
        rule: What is asked.
        found: What was found, with its numbers.
        holds: Whether that is enough.
    """

    rule: str
    found: str
    holds: bool


def limits(
    config: Promote, labels: Labels, classes: list[str], candidate: NDArray[np.float32]
) -> list[Verdict]:
    """Apply the rules that the candidate meets by itself.

    Args:
        config: Section `promote`.
        labels: (N,) class indices of the test split.
        classes: K names.
        candidate: (N, K) probabilities on these images.

    Raises:
        InputError: There is no such metric.
    """
    known = facts.gather(labels, candidate, "facts of the candidate")
    values = metrics.of(known, "ROC-AUC of the candidate")
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
        scores = metrics.per_class(labels, known.predicted, classes)
        present = [name for name in classes if scores[name]["support"]]
        lowest = min(present, key=lambda name: scores[name]["recall"])
        recall = scores[lowest]["recall"]
        rule = f"recall of each class at least {config.min_recall:g}"
        verdicts.append(Verdict(rule, f"{recall:.4f} ({lowest})", recall >= config.min_recall))
    return verdicts


def keeps_classes(candidate: list[str], champion: list[str]) -> Verdict:
    """Whether a candidate knows every class that the champion knows."""
    gone = sorted(set(champion) - set(candidate))
    added = len(set(candidate) - set(champion))
    found = (
        f"{', '.join(gone[:_NAMED])}{' and others' if len(gone) > _NAMED else ''} "
        f"{'are' if len(gone) > 1 else 'is'} gone: set promote.name to keep both models"
        if gone
        else f"all {len(champion)}" + (f", and {added} new" if added else "")
    )
    return Verdict("the champion's classes are kept", found, not gone)


def not_worse(
    config: Promote,
    labels: Labels,
    candidate: NDArray[np.float32],
    champion: NDArray[np.float32],
    seed: int,
) -> Verdict:
    """Compare candidate and champion in pairs.

    Args:
        config: Section `promote`.
        labels: (N,) class indices; only of classes that the champion knows.
        candidate: (N, K) probabilities on these images.
        champion: (N, K) on the same ones.
        seed: Of the bootstrap.
    """
    known = facts.gather(labels, candidate, "facts of the candidate")
    before = facts.gather(labels, champion, "facts of the champion")
    return _not_worse(config, known, before, seed)


def _not_worse(config: Promote, candidate: Facts, champion: Facts, seed: int) -> Verdict:
    compared = resampling.compare(
        resampling.resample(champion, seed, "bootstrap of the champion"),
        resampling.resample(candidate, seed, "bootstrap of the candidate"),
    )
    gain = compared.differences[config.metric]
    if gain.low is None or gain.high is None:
        raise InputError(
            f"promote.metric={config.metric} needs at most {AREAS_MOST:,} probabilities, for its "
            f"interval, got {len(candidate.labels):,} images of {candidate.classes:,} classes: "
            "choose another"
        )
    lower = config.metric in LOWER_IS_BETTER
    worst = gain.high if lower else -gain.low
    rule = f"{config.metric} not worse than the champion's by more than {config.margin:g}"
    measured = f"{gain.value:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    return Verdict(rule, measured, bool(worst <= config.margin))
