"""How sure the metrics are: bootstrap intervals, and paired tests of two models.

facts of N images, of one model or two -> intervals, differences, a verdict. Images are
drawn with replacement; a draw is how often each image is in it, so that all metrics of many
draws are a few sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.evaluation import metrics, verdict
from pipeline.evaluation.facts import Facts, Floats, Labels
from pipeline.evaluation.metrics import ROC_AUC
from pipeline.evaluation.verdict import LEVEL
from pipeline.storage import tables

DRAWS = 1000
"""Of the bootstrap."""
AREAS_MOST = 500_000
"""Probabilities up to which ROC-AUC has an interval: it sorts all of them anew for each draw."""

_CHUNK = 4_000_000
_SLICES_MAX = 50


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        value: Of the metric, or of the difference, on all images.
        low: The 2.5th percentile of the draws; None where none were made (`AREAS_MOST`).
        high: The 97.5th.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Resampled:
    """A model's metrics on all images, and on each draw of them.

    Attributes:
        right: (N,) whether the model is right.
        values: Metric -> of all images.
        drawn: Metric -> (R,), of each draw.
    """

    right: NDArray[np.bool_]
    values: dict[str, float]
    drawn: dict[str, Floats]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        differences: Metric -> second minus first.
        only_first: Images that only the first gets right.
        only_second: Images that only the second gets right.
        p_value: Of McNemar's exact test: how likely so uneven a split of them is by chance.
        verdict: In words: a sentence for accuracy, one for log loss, one for what else counts.
    """

    differences: dict[str, Interval]
    only_first: int
    only_second: int
    p_value: float
    verdict: tuple[str, ...]


def resample(known: Facts, seed: int, desc: str = "") -> Resampled:
    """The metrics of all images, and of draws of as many with replacement.

    Args:
        known: Of N images.
        seed: Of the draws; models that are compared need the same.
        desc: Name of the progress bar; no bar if empty.
    """
    scores = known.probabilities
    with_areas = scores is not None and scores.size <= AREAS_MOST
    parts = []
    with tqdm(
        total=DRAWS, desc=desc, unit="draw", delay=1, leave=False, disable=None if desc else True
    ) as bar:
        for counts in _counts(len(known.labels), known.classes, DRAWS, seed):
            parts.append(metrics.weighted(known, counts))
            if with_areas:
                parts[-1][ROC_AUC] = metrics.roc_auc(known, counts)
            bar.update(len(counts))
    drawn = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Resampled(known.right, metrics.of(known, f"ROC-AUC, {desc}" if desc else ""), drawn)


def intervals(of: Resampled) -> dict[str, Interval]:
    """An interval for each metric."""
    return _bounds(of.values, of.drawn)


def compare(first: Resampled, second: Resampled, metric: str = "macro_f1") -> Comparison:
    """Whether the second model is better than the first.

    Args:
        first: What is compared with.
        second: What may be better, on the same images and the same draws.
        metric: What counts beside accuracy and log loss.
    """
    from scipy import stats

    before, after = first.values, second.values
    differences = _bounds(
        {name: after[name] - before[name] for name in after},
        {
            name: second.drawn[name] - first.drawn[name]
            for name in after
            if name in first.drawn and name in second.drawn
        },
    )
    only_first = int((first.right & ~second.right).sum())
    only_second = int((second.right & ~first.right).sum())
    uneven = only_first + only_second
    p_value = float(stats.binomtest(only_second, uneven).pvalue) if uneven else 1.0
    images = len(first.right)
    bounds = {
        name: (one.low, one.high)
        for name, one in differences.items()
        if one.low is not None and one.high is not None
    }
    sentences = [
        verdict.of_accuracy(
            before["accuracy"],
            after["accuracy"],
            bounds["accuracy"],
            (only_first, only_second),
            p_value,
            images,
        )
    ]
    for name in dict.fromkeys(("log_loss", metric)):
        if name != "accuracy" and name in bounds:
            pair = (before[name], after[name])
            sentences.append(verdict.of_metric(name, *pair, bounds[name], images))
    return Comparison(differences, only_first, only_second, p_value, tuple(sentences))


def write_slices(path: Path, data: Manifest, rows: Labels, known: Facts, seed: int) -> None:
    """Write the metrics of the images that share a value of a further column of the manifest.

    Args:
        path: csv to write.
        data: The prepared data set.
        rows: (N,) that were judged.
        known: Facts of them.
        seed: Of the draws.
    """
    lines: list[list[object]] = []
    names = ("accuracy", "macro_f1", "log_loss")
    for column in data.columns:
        values = np.array([data.rows[row].extra[column] for row in rows])
        if len(set(values)) > _SLICES_MAX:
            print(f"column {column} has more than {_SLICES_MAX} values: no metrics by it")
            continue
        for value in sorted(set(values)):
            chosen = values == value
            spread = intervals(resample(known.of(chosen), seed))
            found = as_json({name: spread[name] for name in names})
            numbers = [found[name][end] for name in names for end in ("value", "low", "high")]
            lines.append([column, value, int(chosen.sum()), *numbers])
    header = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    tables.write_table(path, ["column", "value", "images", *header], lines)


def as_json(found: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Rounded so that the bytes do not depend on the machine's matrix product."""
    return {
        name: {k: None if v is None else round(v, 6) for k, v in asdict(interval).items()}
        for name, interval in found.items()
    }


def _bounds(values: dict[str, float], drawn: dict[str, Floats]) -> dict[str, Interval]:
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    intervals_by_metric = {}
    for name, value in values.items():
        if name not in drawn:
            intervals_by_metric[name] = Interval(value, None, None)
            continue
        low, high = np.nanpercentile(drawn[name], tails)
        intervals_by_metric[name] = Interval(value, float(low), float(high))
    return intervals_by_metric


def _counts(images: int, classes: int, draws: int, seed: int) -> Iterator[Floats]:
    """(r, N) how often each image is in a draw, few enough draws at a time for memory."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(images, classes))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = rng.integers(images, size=(size, images))
        yield np.stack([np.bincount(one, minlength=images) for one in drawn]).astype(np.float64)
