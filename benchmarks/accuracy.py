"""Test accuracy and log loss of several recipes on one's own images, over seeds.

python -m benchmarks.accuracy [SEEDS [BACKBONE [few | own]]]

On the data sets in ../shared/data, each as `init` sets it up, nothing edited. Each seed draws
other images for validation (and test, where the source gives no split), and trains anew:

- logistic: a logistic regression on the features, the head that `init` chooses;
- head only: the linear head, trained step by step;
- Keras guide: plain `fit` with flips and rotations, 12 epochs of the head at 1e-3, then 12 of all
  layers at 1e-5 (benchmarks/keras_guide.py);
- the pipeline: what `init` wrote.

With `few`, sign_digits with 10, 20 and 50 training images a class: logistic and the pipeline.
With `own`, all but the Keras guide, which takes most of the time.

BACKBONE is mobilenet_v2, whose weights are looked for in $KERAS_HOME, or a .keras file. Seconds
are from prepared images to the model, processes' starts included. Log losses are those at the
temperature that fits the validation split best.
"""

import csv
import json
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import side_by_side, workshop

SETS = ("hymenoptera", "sign_digits", "cifar10_small")
LINEAR = (
    *("head.use=linear", "augment.use=none", "augment.layers=[]"),
    *("train_head.learning_rate=1e-3", "train_head.epochs=100", "train_head.patience=10"),
)
FEW = (10, 20, 50)


@dataclass(frozen=True)
class Outcome:
    """A model on the test split: its probabilities, at the temperature that suits it."""

    right: dict[str, bool]
    losses: dict[str, float]
    log_loss: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of the test images."""
        return float(np.mean(list(self.right.values())))


class Project:
    """A copy of the project with one data set, its stages run one by one."""

    def __init__(self, folder: Path, seed: int, words: tuple[str, ...] = ()) -> None:
        self.folder, self._seed, self._words = folder, seed, words
        self.stage("prepare")

    def stage(self, name: str, *words: str) -> float:
        """Run a stage; returns its seconds."""
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline", name, f"seed={self._seed}", *self._words]
        workshop.run(self.folder, *command, "tracking.enabled=false", *words)
        return time.perf_counter() - started

    def tuned(self, *words: str) -> tuple[Outcome, Outcome]:
        """The head alone and the fine-tuned model of a recipe."""
        extracted = self.stage("extract_features", *words)
        head = extracted + self.stage("train_head", *words)
        whole = head + self.stage("finetune", *words)
        return self.judged("head", head), self.judged("model", whole)

    def guide(self) -> Outcome:
        """The model of the Keras guide."""
        started = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.keras_guide", str(self._seed)]
        workshop.run(self.folder, *command)
        return self.judged("rival", time.perf_counter() - started)

    def judged(self, which: str, seconds: float) -> Outcome:
        """What benchmarks.predictions says of a model."""
        workshop.run(self.folder, sys.executable, "-m", "benchmarks.predictions", which)
        actual = json.loads((self.folder / "judged.json").read_text())
        return Outcome(actual["right"], actual["losses"], actual["log_loss"], seconds)


def measure(folder: Path, seed: int, with_guide: bool) -> dict[str, Outcome]:
    """All recipes on one draw of the data."""
    project = Project(folder, seed)
    logistic, pipeline = project.tuned()
    linear, _ = project.tuned(*LINEAR, "finetune.cut=none")
    guide = {"Keras guide": project.guide()} if with_guide else {}
    return {"logistic": logistic, "head only": linear, **guide, "the pipeline": pipeline}


def few(folder: Path, seed: int, count: int) -> dict[str, Outcome]:
    """The pipeline and the floor with `count` training images a class."""
    shares = (f"prepare.train_per_class={count}", f"prepare.val_per_class={max(5, count // 4)}")
    automatic = ("finetune.epochs=auto", "augment.views=auto")
    logistic, pipeline = Project(folder, seed, (*shares, *automatic)).tuned()
    return {"logistic": logistic, "the pipeline": pipeline}


def differences(
    ours: list[Outcome], other: list[Outcome], of: Callable[[Outcome], Mapping[str, float]]
) -> list[float]:
    """Differences of a value of each test image, the mean over seeds."""
    pairs = [(of(item), of(two)) for item, two in zip(ours, other, strict=True)]
    return means([{path: own[path] - theirs[path] for path in own} for own, theirs in pairs])


def means(seeds: Sequence[Mapping[str, float]]) -> list[float]:
    """Mean over seeds of a value of each test image, from the images of each seed."""
    by_image: dict[str, list[float]] = {}
    for values in seeds:
        for path, value in values.items():
            by_image.setdefault(path, []).append(value)
    return [float(np.mean(values)) for values in by_image.values()]


def gains(ours: list[Outcome], other: list[Outcome]) -> list[float]:
    """Differences of accuracy in points, one per test image."""
    return [100 * value for value in differences(ours, other, lambda item: item.right)]


def bounds(differences: list[float]) -> tuple[float, float]:
    """Bootstrap interval of the mean of differences, one per image."""
    values = np.array(differences)
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def interval(differences: list[float], form: str = ".1f") -> str:
    """Mean of differences, one per image, with its bootstrap interval."""
    low, high = bounds(differences)
    return f"{np.mean(differences):+{form}} ({low:+{form}} to {high:+{form}})"


def rows(name: str, results: list[dict[str, Outcome]]) -> list[str]:
    """Lines of the table: medians and ranges over seeds, and the pipeline's gain."""
    lines = []
    ours = [result["the pipeline"] for result in results]
    for recipe in results[0]:
        own = [result[recipe] for result in results]
        cells = [
            side_by_side.middle([item.accuracy for item in own], ".3f"),
            side_by_side.middle([item.log_loss for item in own], ".3f"),
            side_by_side.middle([item.seconds for item in own], ".0f"),
            "" if recipe == "the pipeline" else interval(gains(ours, own)),
        ]
        lines.append(f"| {name} | {recipe} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def project_of(folder: Path, name: str, backbone: str) -> None:
    """Let `init` set a data set up, nothing edited.

    `rooms` are the four rooms of houses_small, whose images of one house form a group.
    """
    source = "houses_small" if name == "rooms" else name
    with tarfile.open(workshop.SHARED / "data" / f"{source}.tar") as archive:
        archive.extractall(folder / "images", filter="data")
    images = f"images/{name}"
    if name == "rooms":
        images = "images/houses_small/rooms.csv"
        with (folder / "images/houses_small/houses.csv").open() as file:
            lines = [f"{row['path']},{row['room']},{row['house']}" for row in csv.DictReader(file)]
        (folder / images).write_text("\n".join(["path,label,group", *lines]) + "\n")
    command = [sys.executable, "-m", "pipeline", "init", images, "--force"]
    print(workshop.run(folder, *command, "--backbone", backbone), file=sys.stderr, flush=True)


def main(seeds: int, backbone: str, with_few: bool, with_guide: bool) -> None:
    title = f"Accuracy, {Path(backbone).stem}" + (", few images" if with_few else "")
    lines = [
        f"Medians (ranges) over {seeds} seeds; the gain is the pipeline's, in points of accuracy,",
        "with its paired 95 % interval over images.",
        "",
        "| data | model | test accuracy | log loss | seconds | gain of the pipeline |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("sign_digits",) if with_few else SETS:
        with workshop.copy() as folder:
            project_of(folder, name, backbone)
            if with_few:
                for count in FEW:
                    actual = [few(folder, seed, count) for seed in range(seeds)]
                    lines += rows(f"{name}, {count} a class", actual)
            else:
                actual = [measure(folder, seed, with_guide) for seed in range(seeds)]
                lines += rows(name, actual)
    side_by_side.write(title, "\n".join(lines))


if __name__ == "__main__":
    requested = [*sys.argv[1:], *("3", "mobilenet_v2")[len(sys.argv) - 1 :]]
    main(int(requested[0]), requested[1], "few" in requested, "own" not in requested)
