"""One class for each image: softmax, logistic regression, accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.tasks import (
    Facts,
    Fit,
    Linear,
    Outputs,
    Plot,
    Region,
    Suspect,
    Task,
    facts,
    figures,
)
from pipeline.data.tasks.facts import TOP, TOP_K, Floats, Labels
from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras

_MAX_CONFUSION, _MISTAKES, _PAIRS, _PER_PAIR = 100, 12, 4, 5


class Classification(Task):
    """One class for each image. Targets are (N,) class indices."""

    name = "classification"
    noun = "classes"
    further = facts.FURTHER
    answer: ClassVar[Mapping[str, str]] = {
        "prediction": "string",
        "probability": "double",
        "probabilities": "probabilities",
    }

    def metrics(self, classes: int) -> tuple[str, ...]:
        return tuple(name for name in self.further if classes > TOP or name != TOP_K)

    def label(self, names: Sequence[str]) -> str:
        if len(names) != 1:
            raise ValueError(f"each image must have one label, got {', '.join(names) or 'none'}")
        return names[0]

    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Labels:
        index = {name: place for place, name in enumerate(classes)}
        return np.array([index[label] for label in labels], dtype=np.int64)

    def check(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Stop at fewer than two classes."""
        classes = sorted({label for split in labels.values() for label in split})
        if len(classes) < 2:
            raise InputError(
                f"a classifier needs at least 2 classes with usable images, got "
                f"{classes or 'none'}: put each class in its own folder, or name it in the column "
                "label of a csv file"
            )

    def outputs(self, logits: Any, targets: Labels | None) -> Any:
        from keras import layers

        return layers.Softmax(name="probabilities")(logits)

    def compiled(self, model: keras.Model, smoothing: float) -> dict[str, Any]:
        import keras

        return {
            "loss": keras.losses.CategoricalCrossentropy(label_smoothing=smoothing),
            "metrics": ["accuracy", keras.metrics.CategoricalCrossentropy(name="log_loss")],
        }

    def encoded(self, targets: Labels, width: int) -> Outputs:
        return np.asarray(targets[:, None] == np.arange(width), np.float32)

    def weights(self, targets: Labels, width: int) -> NDArray[np.float32]:
        """Weight by the inverse frequency of the class."""
        counts = np.bincount(targets, minlength=width)
        by_class = (len(targets) / (width * np.maximum(counts, 1))).astype(np.float32)
        return np.asarray(by_class[targets])

    def fit(self, features: NDArray[np.float32], targets: Labels, how: Fit) -> Linear:
        from pipeline.data.tasks import logistic

        chosen = logistic.fit(features, targets, how)
        text = f"logistic regression, C = {chosen.strength:g}"
        if len(chosen.losses):
            text += f", cross-validated log loss {chosen.losses.mean():.4f}"
        return chosen.weights, chosen.biases, text

    def applied(self, features: NDArray[np.float32], linear: Linear, targets: Labels) -> Outputs:
        from scipy.special import softmax

        return np.asarray(softmax(features @ linear[0] + linear[1], axis=1), np.float32)

    def judge(self, targets: Labels, outputs: Outputs, monitor: str) -> dict[str, float]:
        """Score probabilities.

        `log_loss` is computed after fitting a temperature to the same images, so that confidence
        alone does not matter. For accuracy and macro F1, the log loss breaks ties.
        """
        from pipeline.data.tasks import calibration

        temperature = calibration.temperature(targets, outputs)
        calibrated = calibration.log_loss(targets, outputs, temperature)
        predicted = outputs.argmax(axis=1)
        accuracy = float((predicted == targets).mean())
        score = calibrated
        if monitor != "log_loss":
            value = accuracy
            if monitor == "macro_f1":
                from sklearn.metrics import f1_score

                every = {"labels": np.arange(outputs.shape[1]), "zero_division": 0}
                value = float(f1_score(targets, predicted, average="macro", **every))
            score = 1 - value + 0.5 * min(calibrated, 1.0) / len(targets)
        return {
            "val_loss": calibration.log_loss(targets, outputs),
            "val_accuracy": accuracy,
            "val_score": score,
            "temperature": temperature,
        }

    def losses(self, targets: Labels, outputs: Outputs, monitor: str) -> Floats:
        from pipeline.data.tasks import calibration

        if monitor == "log_loss":
            temperature = calibration.temperature(targets, outputs)
            return calibration.log_losses(targets, outputs, temperature)
        return np.asarray(outputs.argmax(axis=1) != targets, dtype=np.float64)

    def decided(self, outputs: Outputs, thresholds: Floats, classes: Sequence[str]) -> list[str]:
        return [classes[place] for place in outputs.argmax(axis=1)]

    def doubts(self, outputs: Outputs) -> Floats:
        """Return one minus the probability of the predicted class."""
        values: Floats = 1 - outputs.max(axis=1).astype(np.float64)
        return values

    def misses(self, targets: Labels, outputs: Outputs) -> Floats:
        """Return one minus the probability of the true class."""
        own: Floats = outputs[np.arange(len(targets)), targets].astype(np.float64)
        return 1 - own

    def regions(self, outputs: Outputs, reach: float) -> list[Region]:
        """Return the indices of the classes that are probable enough.

        Source: Sadinle, Lei and Wasserman 2019, Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels.
        """
        within = 1 - outputs.astype(np.float64) <= reach
        # If no label is likely enough, include the best one: coverage does not decrease.
        within[np.arange(len(within)), outputs.argmax(axis=1)] = True
        return [np.flatnonzero(row) for row in within]

    def covered(self, target: Any, region: Region) -> bool:
        return bool(target in region)

    def answered(self, output: Outputs, decided: str, classes: Sequence[str]) -> dict[str, Any]:
        probabilities = dict(zip(classes, output.tolist(), strict=True))
        return {
            "prediction": decided,
            "probability": probabilities[decided],
            "probabilities": probabilities,
        }

    def facts(
        self, targets: Labels, outputs: Outputs, decided: Any = None, desc: str = ""
    ) -> Facts:
        return facts.gather(targets, outputs, desc)

    def suspects(
        self, features: NDArray[np.float32], targets: Labels, classes: Sequence[str], how: Fit
    ) -> list[Suspect]:
        """Compare labels with a logistic regression fitted to other images.

        Source: Northcutt, Jiang and Chuang 2021, Confident Learning: Estimating Uncertainty in
        Dataset Labels; the authors wrote cleanlab.
        """
        from cleanlab.filter import find_label_issues

        from pipeline.data.tasks import logistic

        # A class with one image has nothing to compare it with.
        counts = np.bincount(targets, minlength=len(classes))
        rows = np.flatnonzero(counts[targets] > 1)
        present, labels = np.unique(targets[rows], return_inverse=True)
        if len(present) < 2:
            return []
        predicted = logistic.out_of_fold(np.asarray(features[rows]), labels, how)
        ranked = find_label_issues(
            labels, predicted, return_indices_ranked_by="self_confidence", n_jobs=1
        )
        suspects = []
        for place in ranked:
            suggested = int(predicted[place].argmax())
            if suggested != labels[place]:
                own, other = predicted[place, labels[place]], predicted[place, suggested]
                name = classes[int(present[suggested])]
                suspects.append(Suspect(int(rows[place]), name, float(other), float(own)))
        return suspects

    def contradicts(
        self, target: Any, output: Outputs, classes: Sequence[str], suspect: Suspect
    ) -> Suspect | None:
        suggested = int(output.argmax())
        if suggested == target:
            return None
        values = float(output[suggested]), float(output[int(target)])
        return Suspect(suspect.row, classes[suggested], *values)

    def summary(self, spread: Mapping[str, Any], images: int) -> str:
        accuracy = spread["fine_tuned"]["accuracy"]
        value, low, high = (100 * accuracy[end] for end in ("value", "low", "high"))
        right = round(accuracy["value"] * images)
        interval = f"95 % CI {low:.0f} to {high:.0f} %"
        return f"{right} of {images} {{}} images are right ({value:.1f} %, {interval})"


def _confusion(evaluation: Any, path: Path) -> None:
    best, classes = evaluation.best, evaluation.data.classes
    chosen, title = np.arange(best.width), ""
    if best.width > _MAX_CONFUSION:  # no page has room for all
        wrong = ~best.right
        mistakes = sum(
            np.bincount(places[wrong], minlength=best.width)
            for places in (best.labels, best.predicted)
        )
        chosen = np.sort(np.argsort(-mistakes, kind="stable")[:_MAX_CONFUSION])
        title = f"the {_MAX_CONFUSION} of {best.width} classes with the most mistakes"
    counts = facts.confusion(best.labels, best.predicted, chosen)
    names = [figures.short(classes[place], 24) for place in chosen]
    figures.confusion_matrix(path, counts, names, title)


def per_class(evaluation: Any, path: Path) -> None:
    """Draw precision and recall of each class."""
    scores = evaluation.best.scores(evaluation.data.classes)
    figures.per_class_bars(path, {figures.short(name, 40): scores[name] for name in scores})


def _reliability(evaluation: Any, path: Path) -> None:
    models = evaluation.models.items()
    points = {name: facts.binned(own.confidence, own.right) for name, own in models}
    figures.reliability(path, points)


def mistakes(evaluation: Any, path: Path, title: str = "most confident mistakes") -> None:
    """Draw the worst mistakes."""
    cards = [evaluation.captioned(place) for place in evaluation.mistakes[:_MISTAKES]]
    figures.gallery(path, cards, 6, title if cards else "no mistakes")


def _confused_pairs(evaluation: Any, path: Path) -> None:
    """Draw the most frequently confused pairs of classes, one row per pair."""
    best, pairs = evaluation.best, {}
    for place in evaluation.mistakes:
        classes = (int(best.labels[place]), int(best.predicted[place]))
        pairs[int(place)] = (min(classes), max(classes))
    often = sorted(Counter(pairs.values()).items(), key=lambda item: (-item[1], item[0]))
    cards = []
    for pair, _ in often[:_PAIRS]:
        places = [place for place, of in pairs.items() if of == pair][:_PER_PAIR]
        cards += [evaluation.captioned(place) for place in places]
        cards += [evaluation.blank] * (_PER_PAIR - len(places))
    title = "most confused classes, one row per pair" if cards else "no confused classes"
    figures.gallery(path, cards, _PER_PAIR, title)


Classification.plots = {
    "confusion": Plot("Confusion matrix", _confusion),
    "per_class": Plot("By class", per_class),
    "reliability": Plot("Calibration", _reliability),
    "mistakes": Plot("Most confident mistakes", mistakes),
    "confused_pairs": Plot("Most confused classes", _confused_pairs),
}
TASK = Classification()
