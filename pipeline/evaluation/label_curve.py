"""Quality by number of labels, and what more labels would bring.

features + labels -> heads fitted to fractions of the training labels, judged on evaluated images.
Gains are extrapolated by a power law of the errors. Source: Hestness et al. 2017, Deep Learning
Scaling is Predictable, Empirically.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from pipeline.data import tasks
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Fit, Task
from pipeline.data.tasks.facts import Floats, Labels
from pipeline.evaluation.resampling import DRAWS
from pipeline.evaluation.verdict import LEVEL

FILE = "label_curve.json"
MORE = 100
"""Further labels of a class, whose gain is estimated."""

_SHARES = np.array([0.25, 0.5, 1.0])
_DRAWS, _CLASSES = 2, 3
"""Draws of each fraction, and weakest classes that are looked at."""
_DIRECTIONS = 64
"""Principal components of the features: enough for differences, in seconds."""
_MAX_IMAGES, _MAX_VALUES = 5000, 200_000
"""Images of a split that are used, and images times classes from which on it would take long."""


def measure(
    data: Manifest,
    features: NDArray[np.float32],
    rows: Labels,
    weakest: Sequence[str],
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """Measure the curve on evaluated rows; empty if it would take long.

    Returns:
        metric; labels (counts) and values (of the metric, for each count); and gains of the metric:
        `twice` as many labels, and `classes`, name -> `MORE` labels. Each with its interval.
    """
    rng = np.random.default_rng(seed)
    train = np.sort(rng.permutation(data.indices("train"))[:_MAX_IMAGES])
    rows = np.sort(rng.permutation(rows)[:_MAX_IMAGES])
    if len(train) * len(data.classes) > _MAX_VALUES:
        return {}
    named = [data.task.names(data.rows[row].label) for row in train]
    parts = {
        name: np.array([name in names for names in named])
        for name in weakest
        if sum(name in names for names in named) > 1
    }
    parts = dict(list(parts.items())[:_CLASSES])
    # Else a class would gain by being predicted more often.
    balanced = bool(parts) and not data.task.several
    total = 1 + _DRAWS * (len(_SHARES) - 1) * (1 + len(parts))
    with (
        threadpool_limits(threads),
        tqdm(total=total, desc="label curve", unit="head", delay=1, disable=None) as bar,
    ):
        how = Fit(len(data.classes), seed, threads, balanced)
        heads = _Heads(data, features, train, rows, how, bar)
        every = np.ones(len(train), bool)
        whole = heads(every, 1.0, rng)
        overall = heads.by_share(every, whole, rng)
        gains = {
            name: _gain(heads.by_share(own, whole, rng), 1 + MORE / float(own.sum()), seed)
            for name, own in parts.items()
        }
    sign, offset = (1, 0) if tasks.lower_is_better(data.task.each) else (-1, 1)
    values = [_interval(_drawn(wrong, seed) * sign + offset) for wrong in overall]
    twice = _gain(overall, 2.0, seed)
    return {
        "metric": data.task.each,
        "labels": [round(share * len(train)) for share in _SHARES],
        "values": values,
        "twice": _interval(sign * twice),
        "classes": {name: _interval(sign * gain) for name, gain in gains.items()},
    }


class _Heads:
    """Fits heads to a part of the training images, and judges them on the evaluated ones."""

    def __init__(
        self,
        data: Manifest,
        features: NDArray[np.float32],
        train: Labels,
        rows: Labels,
        how: Fit,
        bar: Any,
    ) -> None:
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(features[train].astype(np.float64))
        most = min(_DIRECTIONS, max(1, len(train) // 3), features.shape[1])
        reduction = PCA(most, svd_solver="randomized", random_state=how.seed)
        own = reduction.fit_transform(scaler.transform(features[train].astype(np.float64)))
        others = reduction.transform(scaler.transform(features[rows].astype(np.float64)))
        self._fitted, self._judged = own.astype(np.float32), others.astype(np.float32)
        self._targets, self._truth = data.targets[train], data.targets[rows]
        self._task, self._strata, self._how, self._bar = data.task, data.strata[train], how, bar

    def by_share(
        self, part: NDArray[np.bool_], whole: Floats, rng: np.random.Generator
    ) -> list[Floats]:
        """Return values of the evaluated images for each share of a part; `whole` is the last."""
        draws = [[self(part, share, rng) for _ in range(_DRAWS)] for share in _SHARES[:-1]]
        return [*(np.mean(values, axis=0) for values in draws), whole]

    def __call__(self, part: NDArray[np.bool_], share: float, rng: np.random.Generator) -> Floats:
        """Keep a share of a part, at least one image of each stratum, and all other images."""
        kept = np.flatnonzero(~part).tolist()
        for stratum in np.unique(self._strata[part]):
            own = rng.permutation(np.flatnonzero(part & (self._strata == stratum)))
            kept += own[: max(1, round(share * len(own)))].tolist()
        rows = np.sort(kept)
        linear = self._task.fit(self._fitted[rows], self._targets[rows], self._how)
        outputs = self._task.applied(self._judged, linear, self._targets[rows])
        self._bar.update()
        return self._task.facts(self._truth, outputs).wrong


def _drawn(wrong: Floats, seed: int) -> Floats:
    """Return the mean error of all images, then of `DRAWS` draws with replacement: (1 + R,)."""
    rows = np.random.default_rng(seed).integers(len(wrong), size=(DRAWS, len(wrong)))
    return np.concatenate([[wrong.mean()], wrong[rows].mean(axis=1)])


def _gain(values: list[Floats], factor: float, seed: int) -> Floats:
    """Return the change of the mean error with `factor` times the labels: (1 + R,).

    `values` are the errors of each image, for each of `_SHARES`.
    """
    largest = float(values[-1].max()) or float(np.max(values)) or 1.0
    least = 0.5 * largest / len(values[0])  # no error at all has no logarithm
    drawn = [_drawn(wrong, seed) for wrong in values]
    errors = np.log(np.maximum(drawn, least))
    steps = np.log(_SHARES) - np.log(_SHARES).mean()
    power = np.minimum(steps @ errors / (steps**2).sum(), 0)  # labels do not harm
    change: Floats = drawn[-1] * (factor**power - 1)  # never more than there is
    return change


def _interval(drawn: Floats) -> dict[str, float]:
    """Return the value of all images, and the interval of the draws."""
    low, high = np.percentile(drawn[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    ends = {"value": float(drawn[0]), "low": float(low), "high": float(high)}
    digits = max(6, 3 - int(np.floor(np.log10(max(map(abs, ends.values())) or 1.0))))
    return {name: round(end, digits) + 0.0 for name, end in ends.items()}  # no minus zero


def sentences(curve: Mapping[str, Any], task: Task) -> list[str]:
    """Say what more labels would bring, the largest gain first."""
    if not curve:
        return []
    lower = tasks.lower_is_better(curve["metric"])
    name = curve["metric"].replace("_", " ")
    gains = sorted(curve["classes"].items(), key=lambda item: item[1]["value"], reverse=not lower)
    lines = [("twice as many labels", curve["twice"])]
    lines += [(f"{MORE} more labels of {label}", gain) for label, gain in gains]
    return [f"{what}: {name} {task.changed(**gain)}" for what, gain in lines]
