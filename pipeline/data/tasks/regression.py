"""A number for each image: a linear output, ridge regression, absolute errors.

Positive numbers that are skewed, such as prices, are learned as logarithms. Both this and the scale
are in the model's last layers: outputs are in the unit of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.tasks import Facts, Fit, Linear, Outputs, Plot, Region, Suspect, Task, figures
from pipeline.data.tasks.classification import mistakes
from pipeline.data.tasks.facts import Floats
from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras

_SCALED, _VALUE = "scaled", "value"
"""Names of the last layers."""
_ALPHAS = np.logspace(-2, 6, 17)
"""Candidates for the strength of regularization."""
_BINS, _PER_BIN, _FOLDS = 10, 10, 5
_LARGE = 1000
"""Numbers from here on are written without decimals."""
_MOST, _RESOLVED = 1e38, 1e-5
"""Largest number, and smallest deviation relative to it: float32 has seven digits."""
_FAR = 10.0
"""Most standard deviations from the mean that a head may answer: a logarithm has no such power."""
_DEVIATIONS = 4.0
"""Robust standard deviations from which a number is suspicious."""
_MAX_RANKED = 20_000
"""Maximum number of images for an interval of Spearman's correlation, which sorts every draw."""


@dataclass(frozen=True)
class Scale:
    """How numbers are learned: standardized, as logarithms if they are positive and skewed."""

    mean: float
    deviation: float
    in_logs: bool

    @classmethod
    def of(cls, numbers: Floats) -> Scale:
        from scipy.stats import skew

        # Within a factor of two, a logarithm is nearly a straight line.
        wide = numbers.min() > 0 and numbers.max() > 2 * numbers.min()
        logs = bool(wide) and abs(skew(np.log(numbers))) < abs(skew(numbers))
        learned = np.log(numbers) if logs else numbers
        return cls(float(learned.mean()), float(learned.std()) or 1.0, logs)

    def learned(self, numbers: Floats) -> Floats:
        """Convert numbers to the scale of the head."""
        values: Floats = np.log(numbers) if self.in_logs else numbers
        return (values - self.mean) / self.deviation

    def numbers(self, learned: Floats) -> Outputs:
        """Convert values on the scale of the head to numbers."""
        values = np.clip(learned, -_FAR, _FAR) * self.deviation + self.mean
        return np.asarray(np.exp(values) if self.in_logs else values, np.float32)


@dataclass(frozen=True)
class NumberFacts(Facts):
    """A model's predictions: (N,) numbers each."""

    targets: Floats
    outputs: Floats

    @property
    def width(self) -> int:
        return 1

    @property
    def wrong(self) -> Floats:
        """(N,) absolute errors."""
        return np.abs(self.outputs - self.targets)

    @property
    def confidence(self) -> Floats:
        return self.wrong

    @property
    def explained(self) -> NDArray[np.int64]:
        return np.zeros(len(self.targets), np.int64)

    def of(self, chosen: NDArray[np.bool_]) -> NumberFacts:
        return NumberFacts(self.targets[chosen], self.outputs[chosen])

    def weighted(self, counts: Floats) -> dict[str, Floats]:
        """Compute metrics: (R,) each."""
        total, squares = counts.sum(axis=1), self.wrong**2
        # Around their median: large numbers would lose the digits in which they differ.
        around = self.targets - np.median(self.targets)
        moment = counts @ around**2
        spread = moment - (counts @ around) ** 2 / total
        # Numbers that are all the same leave nothing to explain.
        same = spread <= 1e-9 * moment
        explained = np.where(same, 0, 1 - counts @ squares / np.where(same, 1, spread))
        values = {
            "mean_absolute_error": counts @ self.wrong / total,
            "root_mean_squared_error": np.sqrt(counts @ squares / total),
            "median_absolute_error": np.array(
                [np.median(np.repeat(self.wrong, row)) for row in counts.astype(np.int64)]
            ),
            "r2": explained,
        }
        if len(self.targets) <= _MAX_RANKED or len(counts) == 1:
            values["spearman"] = np.array([self._spearman(row) for row in counts])
        return values

    def _spearman(self, counts: Floats) -> float:
        from scipy.stats import spearmanr

        drawn = np.repeat(np.arange(len(counts)), counts.astype(np.int64))
        pair = self.targets[drawn], self.outputs[drawn]
        if any(np.ptp(values) == 0 for values in pair):
            return 0.0  # a constant orders nothing
        return float(spearmanr(*pair).statistic)

    def scores(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        return {}

    def caption(self, place: int, classes: Sequence[str]) -> str:
        return f"predicted {_spoken(self.outputs[place])}"


def _spoken(value: float) -> str:
    """Return a number for people."""
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def _precise(value: float) -> str:
    """Return a number with six digits, without an exponent if it is large."""
    return f"{value:.0f}" if abs(value) >= _LARGE**2 else f"{value:.6g}"


class Regression(Task):
    """A number for each image. Targets are (N, 1)."""

    name = "regression"
    quality = compared_by = "r2"
    noun = "numbers"
    rate = 4.0  # measured: NOTES.md
    headline = ("mean_absolute_error", "r2")
    further = ("root_mean_squared_error", "median_absolute_error", "spearman")
    each = "mean_absolute_error"
    answer: ClassVar[Mapping[str, str]] = {"prediction": "double"}
    region = ("low", "high")
    covers = "prediction intervals contain the true value"
    size_name = "width"
    has_strata = False
    calibrates = False

    def label(self, names: Sequence[str]) -> str:
        (text,) = names
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not abs(number) <= _MOST:
            raise ValueError(
                f"data.target must be a column of finite numbers such as 1.5, got {text!r}: "
                "correct it, or leave the cell empty to leave the image out"
            )
        return repr(number + 0.0).removesuffix(".0")  # 7 and 7.0 are the same number, as 0 and -0

    def names(self, label: str) -> list[str]:
        return []

    def strata(self, labels: Sequence[str]) -> list[str]:
        """Return the quantile of each number."""
        if not labels:
            return []
        numbers = np.array([float(label) for label in labels])
        count = max(1, min(_BINS, len(numbers) // _PER_BIN))
        edges = np.quantile(numbers, np.linspace(0, 1, count + 1)[1:-1])
        return [f"quantile {place + 1:02} of {count}" for place in np.searchsorted(edges, numbers)]

    def check(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Stop at numbers that are all the same, or a split with fewer than two."""
        for split, own in labels.items():
            if len(own) < 2:
                raise InputError(
                    f"regression needs at least 2 images in {split}, got {len(own)}: add images"
                )
        numbers = np.array([float(label) for label in labels["train"]])
        if len(set(numbers)) < 2:
            raise InputError(
                f"the numbers of the training images must differ, but all are "
                f"{labels['train'][0]}: is data.target the right column?"
            )
        if numbers.std() < _RESOLVED * np.abs(numbers).max():
            low, high = (f"{end:.12g}" for end in (numbers.min(), numbers.max()))
            raise InputError(
                f"the numbers of data.target differ too little for their size, from {low} to "
                f"{high}: subtract {low} from each"
            )

    def classes(self, labels: Sequence[str], title: str) -> list[str]:
        return [title]

    def described(self, classes: Sequence[str]) -> str:
        return f"a number, {classes[0]}"

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Floats:
        return np.array([[float(label)] for label in labels]).reshape(-1, 1)

    def outputs(self, logits: Any, targets: Floats | None) -> Any:
        from keras import layers

        scale = Scale(0.0, 1.0, False) if targets is None else Scale.of(targets[:, 0])
        value = layers.Rescaling(scale.deviation, scale.mean, name=_SCALED)(logits)
        return layers.Activation("exponential", name=_VALUE)(value) if scale.in_logs else value

    def compiled(self, model: keras.Model, smoothing: float) -> dict[str, Any]:
        import keras

        by_name = {layer.name: layer for layer in model.layers}
        scale, in_logs = by_name[_SCALED].scale, _VALUE in by_name

        def loss(truth: Any, outputs: Any) -> Any:
            pair = truth, outputs
            if in_logs:
                pair = tuple(keras.ops.log(keras.ops.maximum(part, 1e-30)) for part in pair)
            return keras.losses.huber(pair[0] / scale, pair[1] / scale)

        error = keras.metrics.MeanAbsoluteError(name="log_loss")
        return {"loss": loss, "metrics": [keras.metrics.R2Score(name="r2"), error]}

    def weights(self, targets: Floats, width: int) -> NDArray[np.float32]:
        """There are no classes to balance."""
        raise InputError("class_weight=balanced needs classes, but numbers are predicted: set null")

    def fit(self, features: NDArray[np.float32], targets: Floats, how: Fit) -> Linear:
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        if how.balanced:
            self.weights(targets, how.width)
        with threadpool_limits(how.threads):
            standard = StandardScaler().fit(features.astype(np.float64))
            learned = Scale.of(targets[:, 0]).learned(targets[:, 0])
            ridge = RidgeCV(_ALPHAS).fit(standard.transform(features), learned)
        weights = (ridge.coef_ / standard.scale_)[:, None]
        biases = np.array([ridge.intercept_ - standard.mean_ @ weights[:, 0]])
        return weights, biases, f"ridge regression, alpha = {ridge.alpha_:g}"

    def applied(self, features: NDArray[np.float32], linear: Linear, targets: Floats) -> Outputs:
        return Scale.of(targets[:, 0]).numbers(features @ linear[0] + linear[1])

    def judge(self, targets: Floats, outputs: Outputs, monitor: str) -> dict[str, float]:
        if monitor != "log_loss":
            raise InputError(f"monitor must be log_loss where numbers are predicted, got {monitor}")
        own = self.facts(targets, outputs).values()
        error = own["mean_absolute_error"]
        return {"val_loss": error, "val_r2": own["r2"], "val_score": error, "temperature": 1.0}

    def losses(self, targets: Floats, outputs: Outputs, monitor: str) -> Floats:
        return self.facts(targets, outputs).wrong

    def decided(self, outputs: Outputs, thresholds: Floats, classes: Sequence[str]) -> list[str]:
        return [str(value) for value in outputs[:, 0]]

    def doubts(self, outputs: Outputs) -> Floats:
        """A number does not say how sure it is: 0."""
        return np.zeros(len(outputs))

    def misses(self, targets: Floats, outputs: Outputs) -> Floats:
        """Return absolute errors.

        Source: Lei et al. 2018, Distribution-Free Predictive Inference for Regression.
        """
        return self.losses(targets, outputs, "")

    def regions(self, outputs: Outputs, reach: float) -> list[Region]:
        return [np.array([value - reach, value + reach]) for value in outputs[:, 0].astype(float)]

    def covered(self, target: Any, region: Region) -> bool:
        return bool(region[0] <= target[0] <= region[1])

    def sized(self, region: Region) -> float:
        return float(region[1] - region[0])

    def size(self, values: Mapping[str, Any]) -> str:
        return f"a width of {_spoken(values[self.size_name])}"

    def spoken(self, value: float) -> str:
        return _spoken(value)

    def changed(self, value: float, low: float, high: float) -> str:
        signs = [f"{'+' if end > 0 else ''}{_spoken(end)}" for end in (value, low, high)]
        return f"{signs[0]} (95 % CI {signs[1]} to {signs[2]})"

    def ranged(self, region: Region | None, classes: Sequence[str]) -> dict[str, Any]:
        return dict(
            zip(self.region, (None, None) if region is None else region.tolist(), strict=True)
        )

    def answered(self, output: Outputs, decided: str, classes: Sequence[str]) -> dict[str, Any]:
        return {"prediction": float(output[0])}

    def text(self, answer: Mapping[str, Any], most: int) -> str:
        ends = (
            f" ({_precise(answer['low'])} to {_precise(answer['high'])})"
            if answer["low"] is not None
            else ""
        )
        return f"{_precise(answer['prediction'])}{ends}"

    def columns(self, classes: Sequence[str]) -> list[str]:
        return []

    def facts(
        self, targets: Floats, outputs: Outputs, decided: Any = None, desc: str = ""
    ) -> NumberFacts:
        return NumberFacts(targets[:, 0], outputs[:, 0].astype(np.float64))

    def constant(self, train: Floats, count: int) -> Outputs:
        """Return the median, whose absolute error is lowest."""
        return np.full((count, 1), np.median(train), np.float32)

    def suspects(
        self, features: NDArray[np.float32], targets: Floats, classes: Sequence[str], how: Fit
    ) -> list[Suspect]:
        from cleanlab.regression.rank import get_label_quality_scores
        from sklearn.model_selection import KFold

        scale = Scale.of(targets[:, 0])
        truth, predicted = scale.learned(targets[:, 0]), np.zeros(len(targets))
        folds = KFold(min(_FOLDS, len(targets)), shuffle=True, random_state=how.seed)
        for others, own in folds.split(targets):
            linear = self.fit(features[others], targets[others], how)
            numbers = self.applied(features[own], linear, targets[others])[:, 0]
            predicted[own] = scale.learned(numbers.astype(np.float64))
        errors = np.abs(truth - predicted)
        errors /= max(1.4826 * float(np.median(errors)), 1e-12)
        quality = get_label_quality_scores(truth, predicted, method="residual")
        numbers = scale.numbers(predicted)
        return [
            Suspect(int(row), str(numbers[row]), float(errors[row]), 0.0)
            for row in np.argsort(quality, kind="stable")
            if errors[row] > _DEVIATIONS
        ]

    def contradicts(
        self, target: Any, output: Outputs, classes: Sequence[str], suspect: Suspect
    ) -> Suspect | None:
        distances = [
            abs(value - target[0]) for value in (float(output[0]), float(suspect.suggested))
        ]
        if 2 * distances[0] < distances[1]:
            return None
        return Suspect(suspect.row, str(output[0]), suspect.probability, 0.0)

    def summary(self, spread: Mapping[str, Any], images: int) -> str:
        error = spread["fine_tuned"]["mean_absolute_error"]
        value, low, high = (_spoken(error[end]) for end in ("value", "low", "high"))
        constant = _spoken(spread["constant"]["mean_absolute_error"]["value"])
        return (
            f"{images} {{}} images are off by {value} on average (95 % CI {low} to {high}); "
            f"always answering the median is off by {constant}"
        )

    def agree(
        self, first: Outputs, second: Outputs, thresholds: Sequence[float]
    ) -> NDArray[np.bool_]:
        close: NDArray[np.bool_] = (np.abs(first - second) <= self.tolerance(first, 0.05))[:, 0]
        return close

    def tolerance(self, outputs: Outputs, share: float) -> float:
        return share * max(float(outputs.std()), 1e-6 * float(np.abs(outputs).max()))

    def trait(self, outputs: Outputs) -> tuple[str, list[float]]:
        return "prediction", outputs[:, 0].tolist()


def _predicted(evaluation: Any, path: Path) -> None:
    best = evaluation.best
    figures.scatter(path, best.targets, best.outputs)


def _residuals(evaluation: Any, path: Path) -> None:
    errors = {name: own.outputs - own.targets for name, own in evaluation.models.items()}
    figures.residuals(path, errors)


Regression.plots = {
    "predicted": Plot("Predicted against true", _predicted),
    "residuals": Plot("Residuals", _residuals),
    "mistakes": Plot("Largest errors", partial(mistakes, title="largest errors")),
}
TASK = Regression()
