"""Tasks: predict a class, several labels or a number for an image.

targets + outputs of a network -> loss, score, metrics, plots and answers. A task is a module here
with a `TASK`; no other code depends on which one it is. To add a task, add such a module
(docs/extending.md).

    >>> from pipeline.data import tasks
    >>> tasks.named("multilabel").names("cat|dog")
    ['cat', 'dog']
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float64]
Outputs = NDArray[np.float32]
Targets = NDArray[Any]
"""(N,) class indices, or (N, K) numbers."""
Region = NDArray[Any]
"""The outputs that an answer considers possible, in the form of its task."""
Linear = tuple[Floats, Floats, str]
"""(D, K) weights and (K,) biases of a head, and how they were found."""

DEFAULT = "classification"
SMALL = 5e-4
"""Metrics below are written with an exponent."""
_LISTED = 20


@dataclass(frozen=True)
class Fit:
    """How a linear head is fitted in closed form, or nearly.

    Attributes:
        width: K.
        seed: Seed of the folds that choose the strength of regularization.
        threads: Threads for linear algebra; the last bits depend on them.
        balanced: Weight all classes equally.
    """

    width: int
    seed: int
    threads: int
    balanced: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot: its title in the report, and the function that draws it to a path."""

    title: str
    draw: Callable[[Any, Path], None]


@dataclass(frozen=True)
class Suspect:
    """An image with a suspicious label.

    Attributes:
        row: Row of `Manifest.images`.
        suggested: What fits better.
        probability: Its probability; for a number, how many deviations it is away from the label.
        label_probability: Probability of the present label; 0 for a number.
    """

    row: int
    suggested: str
    probability: float
    label_probability: float


class Facts(Protocol):
    """A model's predictions for N images, as metrics need them."""

    @property
    def width(self) -> int:
        """K."""

    @property
    def wrong(self) -> Floats:
        """(N,) how wrong each prediction is; 0 is right."""

    @property
    def confidence(self) -> Floats:
        """(N,) by which mistakes are ordered, the highest first."""

    @property
    def explained(self) -> NDArray[np.int64]:
        """(N,) index of the output that Grad-CAM explains."""

    def of(self, chosen: NDArray[np.bool_]) -> Facts:
        """Select some images."""

    def weighted(self, counts: Floats) -> dict[str, Floats]:
        """Compute metrics, (R,) each, counting image n `counts[r, n]` times."""

    def values(self, desc: str = "") -> dict[str, float]:
        """Compute all metrics; `desc` names a progress bar."""
        once = self.weighted(np.ones((1, len(self.wrong))))
        return {name: float(value[0]) for name, value in once.items()}

    def scores(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        """Compute scores of each class; empty if there are none."""

    def caption(self, place: int, classes: Sequence[str]) -> str:
        """Describe the prediction for an image."""


class Task(ABC):
    """Interface of a task. Outputs are (N, K) float32; K is the number of classes."""

    name: ClassVar[str]
    quality: ClassVar[str] = "accuracy"
    """Metric of learning curves and sweeps besides the loss; higher is better."""
    each: ClassVar[str] = "accuracy"
    """Metric that is a mean over images of `Facts.wrong`, or of one minus it."""
    compared_by: ClassVar[str] = "accuracy"
    """Metric that compares networks on a sample; higher is better, 1 is perfect."""
    headline: ClassVar[tuple[str, ...]] = ("accuracy", "log_loss")
    """Metrics in short tables; the first one decides."""
    further: ClassVar[tuple[str, ...]]
    """Metrics that `evaluate.metric` may name besides these; the first is the default."""
    noun: ClassVar[str]
    """Plural noun for messages, such as classes or labels."""
    answer: ClassVar[Mapping[str, str]]
    """Field of an answer -> its kind: string, strings, double or probabilities."""
    region: ClassVar[tuple[str, ...]] = ("labels",)
    """Fields of an answer with a guaranteed coverage."""
    covers: ClassVar[str] = "prediction sets contain the true label"
    plots: ClassVar[Mapping[str, Plot]]
    size_name: ClassVar[str] = "labels_per_image"
    """Name of the mean size of a region."""
    several: ClassVar[bool] = False
    """True if an image may have several labels."""
    has_strata: ClassVar[bool] = True
    """True if splits can have a number of images per class."""
    rate: ClassVar[float] = 1.0
    """Peak learning rate of fine-tuning, relative to that for classes."""
    calibrates: ClassVar[bool] = True
    """True if a temperature can calibrate the outputs."""

    def metrics(self, classes: int) -> tuple[str, ...]:
        """Return those of `further` that make sense for K classes."""
        return self.further

    @abstractmethod
    def label(self, names: Sequence[str]) -> str:
        """Join what a source says of an image to the label in the manifest.

        Raises:
            ValueError: It is not possible; the message is the rule.
        """

    def names(self, label: str) -> list[str]:
        """List the classes in a label."""
        return [label]

    def strata(self, labels: Sequence[str]) -> list[str]:
        """Return groups of labels that are divided evenly between splits."""
        return list(labels)

    @abstractmethod
    def check(self, labels: Mapping[str, Sequence[str]]) -> None:
        """Stop at labels that nothing can be learned from; `labels` is split -> of each image.

        Raises:
            InputError: There are such labels.
        """

    def classes(self, labels: Sequence[str], title: str) -> list[str]:
        """Name the K outputs; `title` is the column that is predicted."""
        return sorted({name for label in labels for name in self.names(label)})

    def described(self, classes: Sequence[str]) -> str:
        """Describe what an answer is, for people."""
        more = f" and {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
        number = "any" if self.several else "one"
        names = f"{', '.join(classes[:_LISTED])}{more}"
        return f"{number} of {len(classes)} {self.noun}: {names}"

    @abstractmethod
    def targets(self, labels: Sequence[str], classes: Sequence[str]) -> Targets:
        """Turn labels of a manifest into targets."""

    @abstractmethod
    def outputs(self, logits: Any, targets: Targets | None) -> Any:
        """Add the last layers to the (B, K) tensor of a head; `targets` are those of train."""

    @abstractmethod
    def compiled(self, model: keras.Model, smoothing: float) -> dict[str, Any]:
        """Return `loss` and `metrics` for Keras, among them `log_loss`, comparable to val_loss."""

    def encoded(self, targets: Targets, width: int) -> Outputs:
        """Return targets as (B, K) for the loss."""
        return np.asarray(targets, np.float32)

    @abstractmethod
    def weights(self, targets: Targets, width: int) -> NDArray[np.float32]:
        """Return a weight for each example that makes all classes equally important: (N,)."""

    @abstractmethod
    def fit(self, features: NDArray[np.float32], targets: Targets, how: Fit) -> Linear:
        """Fit a linear head to (N, D) features."""

    @abstractmethod
    def applied(self, features: NDArray[np.float32], linear: Linear, targets: Targets) -> Outputs:
        """Return the outputs of a linear head; `targets` are those that it was fitted to."""

    @abstractmethod
    def judge(self, targets: Targets, outputs: Outputs, monitor: str) -> dict[str, float]:
        """Score outputs on the validation split.

        Returns:
            val_loss, val_ and `quality`, val_score (lower is better), temperature.
        """

    @abstractmethod
    def losses(self, targets: Targets, outputs: Outputs, monitor: str) -> Floats:
        """Return each image's contribution to the score: (N,)."""

    def thresholds(self, targets: Targets, outputs: Outputs) -> Floats:
        """Choose what decides an answer, on the validation split; empty if nothing does."""
        return np.zeros(0)

    @abstractmethod
    def decided(self, outputs: Outputs, thresholds: Floats, classes: Sequence[str]) -> list[str]:
        """Return the prediction for each image, in the form of a label."""

    @abstractmethod
    def doubts(self, outputs: Outputs) -> Floats:
        """Return how unsure outputs are: (N,)."""

    @abstractmethod
    def misses(self, targets: Targets, outputs: Outputs) -> Floats:
        """Return how far a region must reach to contain the truth: (N,)."""

    @abstractmethod
    def regions(self, outputs: Outputs, reach: float) -> list[Region]:
        """Return the region of each image, for a reach."""

    @abstractmethod
    def covered(self, target: Any, region: Region) -> bool:
        """Check if a region contains the truth."""

    def sized(self, region: Region) -> float:
        """Return the size of a region."""
        return len(region)

    def size(self, values: Mapping[str, Any]) -> str:
        """Say how large regions are; `values` has `size_name`."""
        return f"{values[self.size_name]:.2f} labels"

    def spoken(self, value: float) -> str:
        """Return a value of `each` for people."""
        return f"{100 * value:.1f} %"

    def changed(self, value: float, low: float, high: float) -> str:
        """Return a change of `each` for people, with its interval."""
        points = [f"{round(100 * end, 1) + 0.0:+.1f}" for end in (value, low, high)]
        return f"{points[0]} points (95 % CI {points[1]} to {points[2]})"

    def ranged(self, region: Region | None, classes: Sequence[str]) -> dict[str, Any]:
        """Return the fields `region` of an answer."""
        return {"labels": None if region is None else [classes[int(place)] for place in region]}

    @abstractmethod
    def answered(self, output: Outputs, decided: str, classes: Sequence[str]) -> dict[str, Any]:
        """Return the fields `answer` of an answer, from (K,) outputs and what `decided` says."""

    def text(self, answer: Mapping[str, Any], most: int) -> str:
        """Return an answer as a line of text."""
        ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
        return "  ".join(f"{name} {value:.4f}" for name, value in ranked[:most])

    def columns(self, classes: Sequence[str]) -> list[str]:
        """Name the columns of the outputs in a table."""
        return [f"probability_{name}" for name in classes]

    @abstractmethod
    def facts(
        self, targets: Targets, outputs: Outputs, decided: Targets | None = None, desc: str = ""
    ) -> Facts:
        """Gather what metrics need; outputs may be memory-mapped.

        `decided` are the predictions as targets, where `thresholds` decided them; `desc` names a
        progress bar.
        """

    def constant(self, train: Targets, count: int) -> Outputs | None:
        """Return the outputs of the best constant answer: (count, K); None if it is obvious."""
        return None

    @abstractmethod
    def suspects(
        self, features: NDArray[np.float32], targets: Targets, classes: Sequence[str], how: Fit
    ) -> list[Suspect]:
        """Find images whose label does not fit, by predictions from other images.

        Returns:
            Suspects, the most likely errors first.
        """

    @abstractmethod
    def contradicts(
        self, target: Any, output: Outputs, classes: Sequence[str], suspect: Suspect
    ) -> Suspect | None:
        """Return the suspect with the model's suggestion; None if the model confirms the label."""

    @abstractmethod
    def summary(self, spread: Mapping[str, Any], images: int) -> str:
        """Say how good the fine-tuned model is: `31 of 36 {} images are right ...`.

        `spread` is model -> metric -> value, low and high; of `constant`, too, if there is one.
        """

    def agree(
        self, first: Outputs, second: Outputs, thresholds: Sequence[float]
    ) -> NDArray[np.bool_]:
        """Check for each image if two networks give the same answer: (N,)."""
        same: NDArray[np.bool_] = first.argmax(axis=1) == second.argmax(axis=1)
        return same

    def tolerance(self, outputs: Outputs, share: float) -> float:
        """Return the difference of two outputs that counts as none."""
        return share

    def trait(self, outputs: Outputs) -> tuple[str, list[float]]:
        """Return the name and value of what is watched for drift: `label` is a class index.

        Anything else is a number.
        """
        return "label", outputs.argmax(axis=1).tolist()


def every() -> list[str]:
    """List the names of all tasks."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return [path.stem for path in files if "\nTASK = " in path.read_text(encoding="utf-8")]


def reported() -> list[str]:
    """List the metrics of all tasks that an evaluation can report."""
    each = [(*own.headline, *own.further) for own in map(named, every())]
    return list(dict.fromkeys(metric for metrics in each for metric in metrics))


def named(name: str) -> Task:
    """Return a task.

    Raises:
        InputError: There is no such task.
    """
    if name not in every():
        raise InputError(f"data.task must be auto or one of {', '.join(every())}, got {name!r}")
    task: Task = importlib.import_module(f"{__name__}.{name}").TASK
    return task


def recorded(task: Task) -> dict[str, str]:
    """Return what files say of a task: nothing for the usual one."""
    return {} if task.name == DEFAULT else {"task": task.name}


def digits(value: float, form: str = ".4f") -> str:
    """Return a metric with some decimals, or with an exponent if it is too small for them."""
    return f"{value:{f'{form[:-2]}1e' if 0 < abs(value) < SMALL else form}}"


def lower_is_better(metric: str) -> bool:
    """Check if small values of a metric are good; its name says so."""
    return not {"loss", "error", "brier"}.isdisjoint(metric.split("_"))
