"""How sure the metrics are: bootstrap intervals, and paired tests of two models.

labels (N,) + probabilities (N, K) of one model or two -> intervals, differences, a verdict.
Pictures are drawn with replacement; a draw is how often each picture is in it, so that all
metrics of many draws are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import metrics
from pipeline.metrics import Floats, Labels

LEVEL = 0.95
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval.

    Attributes:
        value: Of the metric, or of the difference, on all pictures.
        low: The 2.5th percentile of the draws.
        high: The 97.5th.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same pictures.

    Attributes:
        differences: Metric -> second minus first.
        only_first: Pictures that only the first gets right.
        only_second: Pictures that only the second gets right.
        p_value: Of McNemar's exact test: how likely so uneven a split of them is by chance.
        verdict: In words.
    """

    differences: dict[str, Interval]
    only_first: int
    only_second: int
    p_value: float
    verdict: str


def intervals(
    labels: Labels, probabilities: NDArray[np.float32], draws: int, seed: int
) -> dict[str, Interval]:
    """An interval for each of `metrics.summary`.

    Args:
        labels: (N,) class indices.
        probabilities: (N, K).
        draws: How many.
        seed: Of the draws.
    """
    values = metrics.summary(labels, probabilities)
    return _bounds(values, _drawn(labels, probabilities, draws, seed))


def compare(
    labels: Labels,
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    draws: int,
    seed: int,
) -> Comparison:
    """Whether the second model is better than the first, by the same draws for both.

    Args:
        labels: (N,) class indices.
        first: (N, K) probabilities of what is compared with.
        second: (N, K) probabilities of what may be better.
        draws: How many.
        seed: Of the draws.
    """
    from scipy import stats

    before, after = metrics.summary(labels, first), metrics.summary(labels, second)
    of_first = _drawn(labels, first, draws, seed)
    of_second = _drawn(labels, second, draws, seed)
    values = {name: after[name] - before[name] for name in after}
    differences = _bounds(values, {name: of_second[name] - of_first[name] for name in values})
    right = [one.argmax(axis=1) == labels for one in (first, second)]
    only_first = int((right[0] & ~right[1]).sum())
    only_second = int((right[1] & ~right[0]).sum())
    uneven = only_first + only_second
    p_value = float(stats.binomtest(only_second, uneven).pvalue) if uneven else 1.0
    told = _verdict(before, after, differences["accuracy"], p_value, len(labels))
    return Comparison(differences, only_first, only_second, p_value, told)


def as_json(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Rounded so that the bytes do not depend on the machine's matrix product."""
    return {
        name: {key: round(value, 6) for key, value in asdict(interval).items()}
        for name, interval in found.items()
    }


def _verdict(
    before: dict[str, float],
    after: dict[str, float],
    accuracy: Interval,
    p_value: float,
    pictures: int,
) -> str:
    scores = f"accuracy {before['accuracy']:.4f} -> {after['accuracy']:.4f}"
    if all(before[name] == after[name] for name in before):
        return f"no difference: {scores} on {pictures} pictures"
    points = [100 * value for value in (accuracy.value, accuracy.low, accuracy.high)]
    measured = (
        f"{scores}, {points[0]:+.1f} points (95 % interval {points[1]:+.1f} to {points[2]:+.1f}; "
        f"McNemar p = {p_value:.2g}; {pictures} pictures)"
    )
    if p_value < 1 - LEVEL and accuracy.low > 0:
        return f"better: {measured}"
    if p_value < 1 - LEVEL and accuracy.high < 0:
        return f"worse: {measured}"
    return f"no difference that {pictures} pictures can tell: {measured}"


def _bounds(values: dict[str, float], drawn: dict[str, Floats]) -> dict[str, Interval]:
    tails = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    found = {}
    for name, value in values.items():
        low, high = np.nanpercentile(drawn[name], tails)
        found[name] = Interval(value, float(low), float(high))
    return found


def _drawn(
    labels: Labels, probabilities: NDArray[np.float32], draws: int, seed: int
) -> dict[str, Floats]:
    """Metric -> its value in each draw: (R,)."""
    parts = [
        weighted(labels, probabilities, counts) for counts in _counts(len(labels), draws, seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _counts(pictures: int, draws: int, seed: int) -> Iterator[Floats]:
    """(r, N) how often each picture is in a draw, few enough draws at a time for memory."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // pictures)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        drawn = rng.integers(pictures, size=(size, pictures))
        yield np.stack([np.bincount(one, minlength=pictures) for one in drawn]).astype(np.float64)


def weighted(
    labels: Labels, probabilities: NDArray[np.float32], counts: Floats
) -> dict[str, Floats]:
    """`metrics.summary` where picture n counts `counts[r, n]` times.

    Args:
        labels: (N,).
        probabilities: (N, K).
        counts: (R, N).

    Returns:
        Metric -> (R,). What a draw does not define, for lack of a class, leaves it out.
    """
    exact, classes = metrics.normalized(probabilities), probabilities.shape[1]
    total = counts.sum(axis=1)
    own, predicted = np.eye(classes)[labels], np.eye(classes)[probabilities.argmax(axis=1)]
    of_own = np.clip(exact[np.arange(len(labels)), labels], np.finfo(np.float64).eps, 1)
    hits = counts @ (own * predicted)
    support, claimed = counts @ own, counts @ predicted
    in_bin = np.eye(metrics.BINS)[metrics.bins(exact)]
    gap = exact.max(axis=1) - (own * predicted).sum(axis=1)
    with np.errstate(invalid="ignore"):
        recall = hits / support
    found = {
        "accuracy": hits.sum(axis=1) / total,
        "macro_f1": (2 * hits / np.maximum(support + claimed, 1)).mean(axis=1),
        "balanced_accuracy": np.nanmean(recall, axis=1),
        "log_loss": counts @ -np.log(of_own) / total,
        "brier": counts @ (0.5 * ((exact - own) ** 2).sum(axis=1)) / total,
        "calibration_error": np.abs(counts @ (in_bin * gap[:, None])).sum(axis=1) / total,
        "roc_auc": _roc_auc(own.astype(bool), exact, counts),
    }
    if classes > metrics.TOP:
        ranked = np.argsort(exact, axis=1, kind="mergesort")[:, ::-1][:, : metrics.TOP]
        within = (ranked == labels[:, None]).any(axis=1).astype(np.float64)
        found[f"top_{metrics.TOP}_accuracy"] = counts @ within / total
    return found


def _roc_auc(own: NDArray[np.bool_], scores: Floats, counts: Floats) -> Floats:
    """(R,): the share of pairs of a picture of a class and one of the rest in right order."""
    areas = []
    for place in range(own.shape[1]):
        order = np.argsort(scores[:, place], kind="stable")
        ranked, positive = scores[order, place], own[order, place]
        starts = np.flatnonzero(np.r_[True, np.diff(ranked) > 0])
        ofs = [
            np.add.reduceat(counts[:, order] * chosen, starts, axis=1)
            for chosen in (positive, ~positive)
        ]
        below = np.cumsum(ofs[1], axis=1) - ofs[1] / 2  # a tie is half in order
        pairs = ofs[0].sum(axis=1) * ofs[1].sum(axis=1)
        with np.errstate(invalid="ignore"):
            areas.append((ofs[0] * below).sum(axis=1) / pairs)
    mean: Floats = np.nanmean(np.stack(areas), axis=0)
    return mean
