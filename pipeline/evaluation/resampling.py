"""Uncertainty of metrics: bootstrap intervals, and paired tests of two models.

facts of N images, for one model or two -> intervals, differences, a verdict. Images are drawn with
replacement; a draw is the number of times each image occurs, so that all metrics of many draws are
a few matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Facts, Task
from pipeline.data.tasks.facts import Floats, Labels
from pipeline.evaluation import verdict
from pipeline.evaluation.verdict import LEVEL
from pipeline.storage import progress, tables

DRAWS = 1000
"""Number of bootstrap draws."""

_CHUNK = 4_000_000
_SLICES_MAX = 50


@dataclass(frozen=True)
class Interval:
    """A 95 % interval: Wilson's for accuracy, of bootstrap percentiles for other metrics.

    Attributes:
        value: The metric, or the difference, on all images.
        low: Its lower end; None if there were no draws.
        high: Its upper end.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Resampled:
    """A model's metrics on all images, and on each draw.

    Attributes:
        wrong: (N,) how wrong each prediction is.
        values: Metric -> value on all images.
        drawn: Metric -> (R,) values on the draws.
    """

    wrong: Floats
    values: dict[str, float]
    drawn: dict[str, Floats]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        differences: Metric -> second minus first.
        only_first: Number of images on which the first is better, such as the only one to be right.
        only_second: Number of images on which the second is better.
        p_value: p-value of the exact sign test; for classes, this is McNemar's.
        verdict: One sentence for each metric.
    """

    differences: dict[str, Interval]
    only_first: int
    only_second: int
    p_value: float
    verdict: tuple[str, ...]


def resample(facts: Facts, seed: int, desc: str = "") -> Resampled:
    """Compute the metrics on all images, and on draws of as many with replacement.

    Models to compare need the same seed. There is no progress bar without `desc`.
    """
    parts, wrong, rng = [], facts.wrong, np.random.default_rng(seed)
    images = len(wrong)
    step = max(1, _CHUNK // max(images, facts.width))  # a few draws at a time, to limit memory
    with progress.bar(desc=desc, total=DRAWS, unit="draw") as bar:
        for start in range(0, DRAWS, step):
            rows = rng.integers(images, size=(min(step, DRAWS - start), images))
            counts = np.stack([np.bincount(row, minlength=images) for row in rows])
            parts.append(facts.weighted(counts.astype(np.float64)))
            bar.update(len(counts))
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Resampled(wrong, facts.values(desc), drawn)


def intervals(of: Resampled) -> dict[str, Interval]:
    """Compute an interval for each metric."""
    bounds, images = _bounds(of.values, of.drawn), len(of.wrong)
    if "accuracy" in bounds:
        accuracy = of.values["accuracy"]
        bounds["accuracy"] = Interval(accuracy, *proportion(round(accuracy * images), images))
    return bounds


def proportion(hits: int, images: int) -> tuple[float, float]:
    """Compute Wilson's interval, which is wide for few images even if all of them are right."""
    from scipy.stats import binomtest

    interval = binomtest(hits, images).proportion_ci(LEVEL, "wilson")
    return float(interval.low), float(interval.high)


def compare(
    first: Resampled, second: Resampled, names: Sequence[str] = ("accuracy", "log_loss", "macro_f1")
) -> Comparison:
    """Compare two models on the same images and draws; `names` are the metrics to report."""
    from scipy import stats

    before, after = first.values, second.values
    common = first.drawn.keys() & second.drawn.keys()
    differences = _bounds(
        {name: after[name] - before[name] for name in after},
        {name: second.drawn[name] - first.drawn[name] for name in common},
    )
    only_first = int((first.wrong < second.wrong).sum())
    only_second = int((second.wrong < first.wrong).sum())
    uneven = only_first + only_second
    p_value = float(stats.binomtest(only_second, uneven).pvalue) if uneven else 1.0
    images = len(first.wrong)
    sentences = []
    for name in dict.fromkeys(names):
        low, high = differences[name].low, differences[name].high
        if low is None or high is None:
            continue
        pair = before[name], after[name], (low, high)
        only = only_first, only_second
        sentences.append(
            verdict.of_accuracy(*pair, only, p_value, images)
            if name == "accuracy"
            else verdict.of_metric(name, *pair)
        )
    return Comparison(differences, only_first, only_second, p_value, tuple(sentences))


def write_slices(path: Path, data: Manifest, rows: Labels, facts: Facts, seed: int) -> None:
    """Write the metrics of (N,) evaluated rows by value of each further column of the manifest."""
    lines: list[list[object]] = []
    names = sliced(data.task)
    for column in data.rows[0].extra:
        values = np.array([data.rows[row].extra[column] for row in rows])
        if len(set(values)) > _SLICES_MAX:
            print(f"column {column} has more than {_SLICES_MAX} values: no metrics by value")
            continue
        for value in sorted(set(values)):
            chosen = values == value
            spread = intervals(resample(facts.of(chosen), seed))
            rounded = as_json({name: spread[name] for name in names})
            numbers = [rounded[name][end] for name in names for end in ("value", "low", "high")]
            lines.append([column, value, int(chosen.sum()), *numbers])
    header = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    tables.write_table(path, ["column", "value", "images", *header], lines)


def sliced(task: Task) -> tuple[str, ...]:
    """Return the metrics that are written for each value of a column."""
    first, *others = task.headline
    return first, task.further[0], *others


def as_json(values: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Round intervals, so that the bytes do not depend on the machine's matrix product."""
    return {
        name: {k: None if v is None else round(v, 6) for k, v in asdict(interval).items()}
        for name, interval in values.items()
    }


def _bounds(values: dict[str, float], drawn: dict[str, Floats]) -> dict[str, Interval]:
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    ends = {name: np.nanpercentile(own, tails).tolist() for name, own in drawn.items()}
    return {name: Interval(value, *ends.get(name, (None, None))) for name, value in values.items()}
