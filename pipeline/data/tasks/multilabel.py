"""Any number of labels for each image: a sigmoid and a threshold for each label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.tasks import Facts, Fit, Linear, Outputs, Plot, Region, Suspect, Task, figures
from pipeline.data.tasks.classification import mistakes, per_class
from pipeline.data.tasks.facts import BINS, Floats, binned
from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras

BETWEEN = "|"
"""Separator of labels in a manifest."""
_TINY = 1e-7
_BOUNDS = (0.05, 0.95)
"""Range of thresholds: a few validation images may suggest any."""
_DOUBT = 0.03
"""Probability of a label, or of its absence, up to which it is suspicious."""
_BARS_MAX = 30


@dataclass(frozen=True)
class LabelFacts(Facts):
    """A model's predictions.

    Attributes:
        targets: (N, K) 1 where an image has a label.
        outputs: (N, K) probabilities.
        decided: (N, K) 1 where a label is predicted.
    """

    targets: NDArray[np.float32]
    outputs: Outputs
    decided: NDArray[np.float32]

    @property
    def width(self) -> int:
        return int(self.outputs.shape[1])

    @property
    def wrong(self) -> Floats:
        """(N,) 1 if any label is wrong."""
        return np.asarray((self.decided != self.targets).any(axis=1), np.float64)

    @property
    def confidence(self) -> Floats:
        return np.asarray(np.abs(self.outputs - self.targets).max(axis=1), np.float64)

    @property
    def explained(self) -> NDArray[np.int64]:
        return np.asarray(self.outputs.argmax(axis=1))

    def of(self, chosen: NDArray[np.bool_]) -> LabelFacts:
        return LabelFacts(self.targets[chosen], self.outputs[chosen], self.decided[chosen])

    def weighted(self, counts: Floats) -> dict[str, Floats]:
        """Compute metrics: (R,) each. A label without an image in a draw does not count there."""
        truth, chosen = self.targets.astype(np.float64), self.decided.astype(np.float64)
        total = counts.sum(axis=1)
        hits, support, claimed = (counts @ part for part in (truth * chosen, truth, chosen))
        both = support + claimed
        with np.errstate(invalid="ignore"):
            macro = _mean(np.where(support > 0, 2 * hits / both, np.nan))
            areas = [
                average_precision(self.outputs[:, place], truth[:, place], counts)
                for place in range(self.width)
            ]
        gaps = counts @ self._gaps()
        return {
            "accuracy": counts @ (1 - self.wrong) / total,
            "log_loss": counts @ losses(self.targets, self.outputs).mean(axis=1) / total,
            "mean_average_precision": _mean(np.stack(areas, axis=1)),
            "macro_f1": macro,
            "micro_f1": 2 * hits.sum(axis=1) / np.maximum(both.sum(axis=1), 1),
            "hamming_loss": counts @ (truth != chosen).mean(axis=1) / total,
            "calibration_error": np.abs(gaps).sum(axis=1) / (total * self.width),
        }

    def _gaps(self) -> Floats:
        """Return sums over labels of probability minus truth by bin of the probability."""
        bins = np.minimum((self.outputs * BINS).astype(np.int64), BINS - 1)
        gaps = self.outputs.astype(np.float64) - self.targets
        return np.stack([np.where(bins == b, gaps, 0).sum(axis=1) for b in range(BINS)], axis=1)

    def scores(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        result = {}
        for place, name in enumerate(classes):
            own = LabelFacts(*(part[:, [place]] for part in vars(self).values()))
            values, support = own.values(), float(own.targets.sum())
            hits, claimed = float((own.targets * own.decided).sum()), float(own.decided.sum())
            result[name] = {
                "precision": hits / max(claimed, 1),
                "recall": hits / max(support, 1),
                "f1": 2 * hits / max(support + claimed, 1),
                "support": support,
                "average_precision": values["mean_average_precision"] if support else 0.0,
                "calibration_error": values["calibration_error"],
            }
        return result

    def caption(self, place: int, classes: Sequence[str]) -> str:
        named = [classes[label] for label in np.flatnonzero(self.decided[place]).tolist()]
        return f"predicted {figures.short(BETWEEN.join(named) or 'none', 24)}"


def _mean(values: Floats) -> Floats:
    """Return the mean of each row without NaN; NaN if there is nothing else."""
    counts = (~np.isnan(values)).sum(axis=1)
    mean: Floats = np.where(counts, np.nansum(values, axis=1) / np.maximum(counts, 1), np.nan)
    return mean


def average_precision(scores: Outputs, truth: Floats, counts: Floats) -> Floats:
    """Compute average precision, as scikit-learn does, of R draws: (R,).

    `truth` is 0 or 1; `counts`, (R, N), is how often each draw contains each image.
    """
    order = np.argsort(-scores, kind="stable")
    drawn = counts[:, order]
    # Equal scores are one threshold, at the last of them.
    ends = np.searchsorted(-scores[order], -scores[order], side="right") - 1
    right, all_ = np.cumsum(drawn * truth[order], axis=1), np.cumsum(drawn, axis=1)
    precision = right[:, ends] / np.maximum(all_[:, ends], 1)
    area: Floats = (precision * drawn * truth[order]).sum(axis=1) / right[:, -1]
    return area


def losses(targets: NDArray[np.float32], outputs: Outputs) -> Floats:
    """Compute the binary cross-entropy of each label: (N, K)."""
    chance = np.clip(outputs.astype(np.float64), _TINY, 1 - _TINY)
    values: Floats = -np.where(targets > 0, np.log(chance), np.log1p(-chance))
    return values


class Multilabel(Task):
    """Any number of labels for each image. Targets are (N, K) of 0 and 1."""

    name = "multilabel"
    noun = "labels"
    rate = 4.0  # measured: NOTES.md
    several = True
    covers = "prediction sets contain all true labels"
    compared_by = "mean_average_precision"
    headline = ("mean_average_precision", "log_loss")
    further = ("macro_f1", "micro_f1", "accuracy", "hamming_loss", "calibration_error")
    answer: ClassVar[Mapping[str, str]] = {
        "prediction": "strings",
        "probabilities": "probabilities",
    }

    def label(self, names: Sequence[str]) -> str:
        for name in names:
            if BETWEEN in name:
                raise ValueError(f"a label must not contain {BETWEEN!r}, got {name!r}")
        return BETWEEN.join(sorted(set(names)))

    def names(self, label: str) -> list[str]:
        return label.split(BETWEEN) if label else []

    def strata(self, labels: Sequence[str]) -> list[str]:
        """Group images by the rarest label of those that are left.

        Source: Sechidis, Tsoumakas and Vlahavas 2011, On the Stratification of Multi-label Data.
        """
        by_text, counts = Counter(labels), Counter[str]()
        having: dict[str, list[str]] = defaultdict(list)
        for text, number in by_text.items():
            for name in self.names(text):
                counts[name] += number
                having[name].append(text)
        chosen = {"": "no label"}
        while counts := +counts:  # without labels whose images are all in a group
            rarest = min(counts, key=lambda name: (counts[name], name))
            for text in having[rarest]:
                if text not in chosen:
                    chosen[text] = rarest
                    counts.subtract(dict.fromkeys(self.names(text), by_text[text]))
        return [chosen[text] for text in labels]

    def check(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Stop at labels that are on every image of train, or of which there is only one."""
        if not any(map(any, labels.values())):
            raise InputError("no image has a label: correct data.label_columns or the csv file")
        train = [set(self.names(label)) for label in labels.get("train", ())]
        everywhere = set.intersection(*train) if train else set()
        if everywhere:
            raise InputError(
                f"a label must be absent from some training images, but {min(everywhere)!r} is on "
                f"all {len(train)}: leave it out, or add images without it, with 0 in a column "
                "that data.label_columns names"
            )

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.float32]:
        index = {name: place for place, name in enumerate(classes)}
        targets = np.zeros((len(labels), len(classes)), np.float32)
        for row, label in enumerate(labels):
            targets[row, [index[name] for name in self.names(label)]] = 1
        return targets

    def outputs(self, logits: Any, targets: Any) -> Any:
        from keras import layers

        return layers.Activation("sigmoid", name="probabilities")(logits)

    def compiled(self, model: keras.Model, smoothing: float) -> dict[str, Any]:
        import keras

        def exact(truth: Any, outputs: Any) -> Any:
            same = keras.ops.equal(truth > 0.5, outputs > 0.5)
            return keras.ops.cast(keras.ops.all(same, axis=-1), "float32")

        return {
            "loss": keras.losses.BinaryCrossentropy(label_smoothing=smoothing),
            "metrics": [
                keras.metrics.MeanMetricWrapper(exact, name="accuracy"),
                keras.metrics.BinaryCrossentropy(name="log_loss"),
            ],
        }

    def weights(self, targets: NDArray[np.float32], width: int) -> NDArray[np.float32]:
        """Weight by the mean inverse frequency of an image's labels."""
        rarity = len(targets) / np.maximum(targets.sum(axis=0), 1)
        own = targets.sum(axis=1)
        weights = np.where(own > 0, targets @ rarity / np.maximum(own, 1), 1)
        return np.asarray(weights / weights.mean(), np.float32)

    def fit(self, features: NDArray[np.float32], targets: NDArray[np.float32], how: Fit) -> Linear:
        from pipeline.data.tasks import logistic

        fits = logistic.one_vs_rest(features, targets.astype(np.int64), how)
        weights = np.stack([fit.weights[:, 1] - fit.weights[:, 0] for fit in fits], axis=1)
        biases = np.array([fit.biases[1] - fit.biases[0] for fit in fits])
        middle = float(np.median([fit.strength for fit in fits]))
        return weights, biases, f"{how.width} logistic regressions, median C = {middle:g}"

    def applied(self, features: NDArray[np.float32], linear: Linear, targets: Any) -> Outputs:
        from scipy.special import expit

        return np.asarray(expit(features @ linear[0] + linear[1]), np.float32)

    def judge(
        self, targets: NDArray[np.float32], outputs: Outputs, monitor: str
    ) -> dict[str, float]:
        from pipeline.data.tasks import calibration

        binary, sides = _binary(targets, outputs)
        temperature = calibration.temperature(binary, sides)
        calibrated = calibration.log_loss(binary, sides, temperature)
        own = LabelFacts(targets, outputs, np.asarray(outputs > 0.5, np.float32)).values()
        score = calibrated
        if monitor != "log_loss":
            score = 1 - own[monitor] + 0.5 * min(calibrated, 1.0) / len(targets)
        return {
            "val_loss": own["log_loss"],
            "val_accuracy": own["accuracy"],
            "val_score": score,
            "temperature": temperature,
        }

    def losses(self, targets: NDArray[np.float32], outputs: Outputs, monitor: str) -> Floats:
        from pipeline.data.tasks import calibration

        if monitor == "log_loss":
            binary, sides = _binary(targets, outputs)
            temperature = calibration.temperature(binary, sides)
            each = calibration.log_losses(binary, sides, temperature)
            return np.asarray(each.reshape(outputs.shape).mean(axis=1))
        return np.asarray(((outputs > 0.5) != (targets > 0.5)).any(axis=1), np.float64)

    def thresholds(self, targets: NDArray[np.float32], outputs: Outputs) -> Floats:
        """Choose the threshold with the highest F1 for each label: (K,)."""
        from sklearn.metrics import precision_recall_curve

        chosen = np.full(outputs.shape[1], 0.5)
        for place in np.flatnonzero(targets.sum(axis=0)):
            precision, recall, at = precision_recall_curve(targets[:, place], outputs[:, place])
            f1 = 2 * precision * recall / np.maximum(precision + recall, _TINY)
            best = int(f1[:-1].argmax())
            below = at[best - 1] if best else 0.0
            chosen[place] = (at[best] + below) / 2  # between two images, not on one
        return np.asarray(np.clip(chosen, *_BOUNDS))

    def decided(self, outputs: Outputs, thresholds: Floats, classes: Sequence[str]) -> list[str]:
        return [
            BETWEEN.join(classes[place] for place in np.flatnonzero(row).tolist())
            for row in outputs > thresholds
        ]

    def doubts(self, outputs: Outputs) -> Floats:
        """Return how close probabilities are to one half, the mean over labels."""
        values: Floats = np.minimum(outputs, 1 - outputs).mean(axis=1).astype(np.float64)
        return values

    def misses(self, targets: NDArray[np.float32], outputs: Outputs) -> Floats:
        """Return one minus the lowest probability of a true label; 0 without labels."""
        lacking: Floats = np.where(targets > 0, 1 - outputs.astype(np.float64), 0).max(axis=1)
        return lacking

    def regions(self, outputs: Outputs, reach: float) -> list[Region]:
        return [np.flatnonzero(row) for row in 1 - outputs.astype(np.float64) <= reach]

    def covered(self, target: Any, region: Region) -> bool:
        return set(np.flatnonzero(target)) <= set(region.tolist())

    def answered(self, output: Outputs, decided: str, classes: Sequence[str]) -> dict[str, Any]:
        probabilities = dict(zip(classes, output.tolist(), strict=True))
        return {"prediction": self.names(decided), "probabilities": probabilities}

    def text(self, answer: Mapping[str, Any], most: int) -> str:
        return f"{', '.join(answer['prediction']) or 'no label'}  ({super().text(answer, most)})"

    def facts(
        self, targets: NDArray[np.float32], outputs: Outputs, decided: Any = None, desc: str = ""
    ) -> Facts:
        chosen = outputs > 0.5 if decided is None else decided
        return LabelFacts(targets, np.asarray(outputs), np.asarray(chosen, np.float32))

    def constant(self, train: NDArray[np.float32], count: int) -> Outputs:
        """Return the prevalence of each label."""
        return np.tile(train.mean(axis=0, dtype=np.float32), (count, 1))

    def suspects(
        self,
        features: NDArray[np.float32],
        targets: NDArray[np.float32],
        classes: Sequence[str],
        how: Fit,
    ) -> list[Suspect]:
        from cleanlab.multilabel_classification import filter as cleanlab

        from pipeline.data.tasks import logistic

        # A label that is on one image, or absent from one, has nothing to compare it with.
        counts = targets.sum(axis=0)
        columns = np.flatnonzero((counts > 1) & (counts < len(targets) - 1))
        if not len(columns):
            return []
        predicted = targets.astype(np.float64)
        own = targets[:, columns].astype(np.int64)
        predicted[:, columns] = logistic.out_of_fold(features, own, how)
        lists = [np.flatnonzero(row).tolist() for row in targets]
        if len(classes) > 1:
            ranked = cleanlab.find_label_issues(
                lists, predicted, return_indices_ranked_by="self_confidence", n_jobs=1
            )
        else:  # cleanlab needs two
            ranked = np.argsort(np.where(targets > 0, predicted, 1 - predicted)[:, 0])
        doubted = [
            self.contradicts(targets[row], predicted[row], classes, Suspect(int(row), "", 0, 0))
            for row in ranked
        ]
        return [suspect for suspect in doubted if suspect]

    def contradicts(
        self, target: Any, output: Any, classes: Sequence[str], suspect: Suspect
    ) -> Suspect | None:
        own = np.where(target > 0, output, 1 - output)
        worst = int(own.argmin())
        if own[worst] > _DOUBT:
            return None
        flipped = np.array(target) > 0
        flipped[worst] = not flipped[worst]
        suggested = BETWEEN.join(classes[place] for place in np.flatnonzero(flipped).tolist())
        return Suspect(suspect.row, suggested, float(1 - own[worst]), float(own[worst]))

    def summary(self, spread: Mapping[str, Any], images: int) -> str:
        intervals = spread["fine_tuned"]
        precision = intervals["mean_average_precision"]
        value, low, high = (precision[end] for end in ("value", "low", "high"))
        exact = round(intervals["accuracy"]["value"] * images)
        return (
            f"mean average precision {value:.3f} (95 % CI {low:.3f} to {high:.3f}); all labels of "
            f"{exact} of {images} {{}} images are right"
        )

    def trait(self, outputs: Outputs) -> tuple[str, list[float]]:
        """Return the expected number of labels of each image."""
        return "labels", outputs.sum(axis=1).tolist()

    def agree(
        self, first: Outputs, second: Outputs, thresholds: Sequence[float]
    ) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = ((first > thresholds) == (second > thresholds)).all(axis=1)
        return same


def _binary(
    targets: NDArray[np.float32], outputs: Outputs
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return (N K,) answers of yes or no, and (N K, 2) probabilities of both."""
    chance = np.clip(outputs.ravel(), _TINY, 1 - _TINY)
    return targets.ravel().astype(np.int64), np.stack([1 - chance, chance], axis=1)


def _occurrence(evaluation: Any, path: Path) -> None:
    """Draw how often each label is predicted on images with each true label."""
    best, classes = evaluation.best, evaluation.data.classes
    often = np.sort(np.argsort(-best.targets.sum(axis=0), kind="stable")[:_BARS_MAX])
    counts = (best.targets.T @ best.decided)[np.ix_(often, often)].astype(np.int64)
    names = [figures.short(classes[place], 24) for place in often]
    title = f"the {_BARS_MAX} most frequent of {len(classes)} labels"
    totals = best.targets.sum(axis=0)[often].astype(np.int64)
    title = title if len(names) < len(classes) else ""
    figures.confusion_matrix(path, counts, names, title, totals)


def _precision_recall(evaluation: Any, path: Path) -> None:
    """Draw precision against recall of the labels with the lowest average precision."""
    from sklearn.metrics import precision_recall_curve

    best, classes = evaluation.best, evaluation.data.classes
    scores = best.scores(classes)
    lowest = sorted(
        (name for name in classes if scores[name]["support"]),
        key=lambda name: scores[name]["average_precision"],
    )[:10]
    lines = {}
    for name in lowest:
        place = classes.index(name)
        precision, recall, _ = precision_recall_curve(
            best.targets[:, place], best.outputs[:, place]
        )
        area = scores[name]["average_precision"]
        lines[f"{figures.short(name, 24)} ({area:.2f})"] = (recall, precision)
    figures.curves(path, lines, "recall", "precision")


def _calibration(evaluation: Any, path: Path) -> None:
    drawn = {}
    for name, own in evaluation.models.items():
        drawn[name] = binned(own.outputs.ravel().astype(np.float64), own.targets.ravel())
    figures.reliability(path, drawn)


Multilabel.plots = {
    "precision_recall": Plot("Precision and recall of the weakest labels", _precision_recall),
    "per_class": Plot("By label", per_class),
    "occurrence": Plot("Predicted by true label", _occurrence),
    "reliability": Plot("Calibration", _calibration),
    "mistakes": Plot("Most confident mistakes", mistakes),
}
TASK = Multilabel()
