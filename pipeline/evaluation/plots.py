"""Plots of an evaluation: curves, confusion, calibration, mistakes and their causes.

`Evaluation` -> plots/*.png, one for each entry of `PLOTS`, and the csv files that DVC plots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.image_file import Pixels
from pipeline.data.manifest import Manifest
from pipeline.evaluation import figures, metrics, near_duplicates
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.label_errors import Suspect
from pipeline.evaluation.near_duplicates import Pair
from pipeline.storage import tables
from pipeline.training import curves
from pipeline.training.curves import Curve

if TYPE_CHECKING:
    import keras

_MISTAKES, _PAIRS, _PER_PAIR, _HEATED, _DUPLICATES, _MAX_CONFUSION = 12, 4, 5, 6, 9, 100
_SUSPECTS, _NEIGHBOURS = 24, 5
# DVC's templates require Vega-Lite 5.
_VEGA_LITE = "5.21"


@dataclass(frozen=True)
class Evaluation:
    """Everything that is plotted.

    Attributes:
        data: The prepared dataset.
        rows: (N,) rows of `data.images` that were evaluated.
        features: (., D) of all images, to find similar ones.
        models: Name -> facts; `fine_tuned` is examined closely.
        probabilities: (N, K) of the fine-tuned model.
        classifier: The fine-tuned model.
        head_curve: Learning curve of the head.
        curve: Learning curve of fine-tuning.
        pairs: Near duplicates, the most similar first.
        suspects: Images with suspicious labels, the most likely errors first.
    """

    data: Manifest
    rows: Labels
    features: NDArray[np.float32]
    models: Mapping[str, Facts]
    probabilities: NDArray[np.float32]
    classifier: keras.Model
    head_curve: Curve
    curve: Curve
    pairs: Sequence[Pair]
    suspects: Sequence[Suspect]

    @property
    def best(self) -> Facts:
        """Facts of the fine-tuned model."""
        return self.models["fine_tuned"]

    @cached_property
    def mistakes(self) -> Labels:
        """Positions of the misclassified images, the most confident first."""
        wrong = np.flatnonzero(~self.best.right)
        ordered: Labels = wrong[np.argsort(-self.best.confidence[wrong], kind="stable")]
        return ordered

    def captioned(self, place: int) -> tuple[Pixels, str]:
        """Return an image with its label, prediction and path."""
        row, values = self.data.rows[self.rows[place]], self.probabilities[place]
        predicted = int(values.argmax())
        caption = (
            f"true {_short(row.label, 24)}",
            f"predicted {_short(self.data.classes[predicted], 18)} ({values[predicted]:.2f})",
            _short(row.path, 30),
        )
        return self.data.images[self.rows[place]], "\n".join(caption)

    def named(self, row: int, split: bool = False) -> tuple[Pixels, str]:
        """Return any image of the dataset with its label and path."""
        image = self.data.rows[row]
        begin = f"{image.split}: " if split else ""
        caption = f"{begin}{_short(image.label, 20)}\n{_short(image.path, 30)}"
        return self.data.images[row], caption

    @property
    def blank(self) -> tuple[Pixels, str]:
        """An empty place in a gallery."""
        return np.full_like(self.data.images[0], 255), ""


@dataclass(frozen=True)
class Plot:
    """A plot: its title in the report, and the function that draws it to a path."""

    title: str
    draw: Callable[[Evaluation, Path], None]


def write(folder: Path, evaluation: Evaluation) -> None:
    """Draw every plot into a new folder."""
    folder.mkdir()
    for name, plot in tqdm(
        PLOTS.items(), desc="plots", unit="plot", delay=1, leave=False, disable=None
    ):
        plot.draw(evaluation, folder / f"{name}.png")


def write_data(folder: Path, evaluation: Evaluation) -> None:
    """Write the data of `.dvc/plots.html`, and Vega to plot it offline."""
    import vl_convert

    folder.mkdir()
    data, best = evaluation.data, evaluation.best
    curves.write(folder / "learning_curves.csv", [*evaluation.head_curve, *evaluation.curve])
    columns = (
        [data.classes[place] for place in places] for places in (best.labels, best.predicted)
    )
    header = ("label", "prediction")
    tables.write_table(folder / "confusion.csv", header, zip(*columns, strict=True))
    exports = "Object.assign(window, {vega, vegaLite, vegaEmbed});"
    bundle = vl_convert.javascript_bundle(exports, vl_version=_VEGA_LITE)
    (folder / "vega.js").write_text(bundle, encoding="utf-8")


def _short(text: str, most: int) -> str:
    """Shorten a text to its beginning and its end, which distinguishes numbered names."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _learning_curves(evaluation: Evaluation, path: Path) -> None:
    figures.learning_curves(path, evaluation.head_curve, evaluation.curve)


def _confusion(evaluation: Evaluation, path: Path) -> None:
    data, facts = evaluation.data, evaluation.best
    chosen = np.arange(facts.classes)
    if facts.classes > _MAX_CONFUSION:  # no page has room for all
        wrong = ~facts.right
        mistakes = sum(
            np.bincount(places[wrong], minlength=facts.classes)
            for places in (facts.labels, facts.predicted)
        )
        chosen = np.sort(np.argsort(-mistakes, kind="stable")[:_MAX_CONFUSION])
    counts = metrics.confusion(facts.labels, facts.predicted, chosen)
    names = [_short(data.classes[place], 24) for place in chosen]
    figures.confusion_matrix(path, counts, names, facts.classes)


def _per_class(evaluation: Evaluation, path: Path) -> None:
    best, classes = evaluation.best, evaluation.data.classes
    scores = metrics.per_class(best.labels, best.predicted, classes)
    figures.per_class_bars(path, {_short(name, 40): scores[name] for name in scores})


def _reliability(evaluation: Evaluation, path: Path) -> None:
    models = evaluation.models.items()
    figures.reliability(path, {name: metrics.reliability(facts) for name, facts in models})


def _mistakes(evaluation: Evaluation, path: Path) -> None:
    cards = [evaluation.captioned(place) for place in evaluation.mistakes[:_MISTAKES]]
    figures.gallery(path, cards, 6, "most confident mistakes" if cards else "no mistakes")


def _confused_pairs(evaluation: Evaluation, path: Path) -> None:
    """Draw the most frequently confused pairs of classes, one row per pair."""
    facts, pairs = evaluation.best, {}
    for place in evaluation.mistakes:
        classes = (int(facts.labels[place]), int(facts.predicted[place]))
        pairs[int(place)] = (min(classes), max(classes))
    often = sorted(Counter(pairs.values()).items(), key=lambda item: (-item[1], item[0]))
    cards = []
    for pair, _ in often[:_PAIRS]:
        places = [place for place, of in pairs.items() if of == pair][:_PER_PAIR]
        cards += [evaluation.captioned(place) for place in places]
        cards += [evaluation.blank] * (_PER_PAIR - len(places))
    title = "most confused classes, one row per pair" if cards else "no confused classes"
    figures.gallery(path, cards, _PER_PAIR, title)


def _neighbours(evaluation: Evaluation, path: Path) -> None:
    """Draw the most confident mistakes, each with the most similar training images."""
    mistakes, train = evaluation.mistakes[:_HEATED], evaluation.data.indices("train")
    nearest = near_duplicates.nearest(evaluation.features, evaluation.rows[mistakes], train)
    cards = []
    for place, similar in zip(mistakes, nearest, strict=True):
        cards += [evaluation.captioned(place), *(evaluation.named(row) for row in similar)]
        cards += [evaluation.blank] * (_NEIGHBOURS - len(similar))
    title = "most confident mistakes, and the most similar training images"
    figures.gallery(path, cards, 1 + _NEIGHBOURS, title if cards else "no mistakes")


def _label_errors(evaluation: Evaluation, path: Path) -> None:
    """Draw images with suspicious labels, the most likely errors first."""
    data, cards = evaluation.data, []
    for suspect in evaluation.suspects[:_SUSPECTS]:
        row = data.rows[suspect.row]
        caption = (
            f"label {_short(row.label, 20)} {suspect.label_probability:.2f}",
            f"model {_short(data.classes[suspect.suggested], 20)} {suspect.probability:.2f}",
            _short(row.path, 30),
        )
        cards.append((data.images[suspect.row], "\n".join(caption)))
    count = len(evaluation.suspects)
    title = f"{count} suspicious labels" if cards else "no suspicious labels"
    figures.gallery(path, cards, 6, title)


def _near_duplicates(evaluation: Evaluation, path: Path) -> None:
    """Draw near duplicates in pairs, the most similar first."""
    pairs = evaluation.pairs
    rows = [row for pair in pairs[:_DUPLICATES] for row in (pair.row, pair.other)]
    cards = [evaluation.named(row, split=True) for row in rows]
    title = f"{len(pairs)} near duplicates" if cards else "no near duplicates"
    figures.gallery(path, cards, 6, title)


def _grad_cam(evaluation: Evaluation, path: Path) -> None:
    """Draw Grad-CAM for the most confident mistakes, then for correct predictions."""
    from pipeline.networks.gradcam import GradCam, overlay

    cam, facts, mistakes = GradCam(evaluation.classifier), evaluation.best, evaluation.mistakes
    if cam.layer is None:
        figures.gallery(path, [], 6, "no layer keeps rows and columns")
        return
    right = np.setdiff1d(np.arange(len(evaluation.rows)), mistakes)
    right = right[np.argsort(-facts.confidence[right], kind="stable")]
    half = min(_HEATED, len(mistakes))
    chosen = np.concatenate([mistakes[:half], right[: 2 * _HEATED - half]])
    images = evaluation.data.images[evaluation.rows[chosen]]
    cards = []
    for place, heat in zip(chosen, cam.maps(images, facts.predicted[chosen]), strict=True):
        image, caption = evaluation.captioned(place)
        text = "evidence for the prediction" if heat.any() else "no region is evidence"
        cards += [(image, caption), (overlay(image, heat), text)]
    figures.gallery(path, cards, 6, f"Grad-CAM at {cam.layer}")


PLOTS = {
    "learning_curves": Plot("Learning curves", _learning_curves),
    "confusion": Plot("Confusion matrix", _confusion),
    "per_class": Plot("By class", _per_class),
    "reliability": Plot("Calibration", _reliability),
    "mistakes": Plot("Most confident mistakes", _mistakes),
    "confused_pairs": Plot("Most confused classes", _confused_pairs),
    "neighbours": Plot("Mistakes and the most similar training images", _neighbours),
    "label_errors": Plot("Suspicious labels", _label_errors),
    "near_duplicates": Plot("Near duplicates of training images", _near_duplicates),
    "grad_cam": Plot("Grad-CAM", _grad_cam),
}
"""File -> plot, in the order of the report."""
