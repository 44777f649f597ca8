"""Plots of an evaluation: curves, counts, calibration, mistakes and what led to them.

`Evaluation` -> plots/*.png, one for each entry of `PLOTS`, and the csv files that DVC draws.
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

_MISTAKES, _PAIRS, _OF_A_PAIR, _HEATED, _ALIKE, _CONFUSED = 12, 4, 5, 6, 9, 100
_SUSPECTS, _BESIDE = 24, 5
# DVC's templates are written for Vega-Lite 5.
_VEGA_LITE = "5.21"


@dataclass(frozen=True)
class Evaluation:
    """What is plotted.

    Attributes:
        data: The prepared data set.
        rows: (N,) the rows of `data.images` that were judged.
        features: (., D) of all images, by which likeness is told.
        models: Name -> facts; `fine_tuned` is looked at closely.
        probabilities: (N, K) of the fine-tuned model.
        classifier: The fine-tuned model.
        head_curve: Learning curve of the head.
        curve: Learning curve of fine-tuning.
        pairs: Near duplicates, the most alike first.
        suspects: Images that may be mislabelled, the most probable first.
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
        """Places of the wrongly classified images, the surest first."""
        wrong = np.flatnonzero(~self.best.right)
        ordered: Labels = wrong[np.argsort(-self.best.confidence[wrong], kind="stable")]
        return ordered

    def captioned(self, place: int) -> tuple[Pixels, str]:
        """An image, what it is, what the classifier takes it for, and where it comes from."""
        row, values = self.data.rows[self.rows[place]], self.probabilities[place]
        predicted = int(values.argmax())
        caption = (
            f"true {_short(row.label, 24)}",
            f"predicted {_short(self.data.classes[predicted], 18)} {values[predicted]:.2f}",
            _short(row.path, 30),
        )
        return self.data.images[self.rows[place]], "\n".join(caption)

    def named(self, row: int, split: bool = False) -> tuple[Pixels, str]:
        """Any image of the data set with its label and path."""
        one = self.data.rows[row]
        begin = f"{one.split}: " if split else ""
        return self.data.images[row], f"{begin}{_short(one.label, 20)}\n{_short(one.path, 30)}"

    @property
    def blank(self) -> tuple[Pixels, str]:
        """A place in a gallery without an image."""
        return np.full_like(self.data.images[0], 255), ""


@dataclass(frozen=True)
class Plot:
    """A plot: its title in the report, and what draws it to a path."""

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
    """Write what `.dvc/plots.html` draws, and Vega to draw it without the internet."""
    import vl_convert

    folder.mkdir()
    data, best = evaluation.data, evaluation.best
    curves.write(folder / "learning_curves.csv", [*evaluation.head_curve, *evaluation.curve])
    named = ([data.classes[place] for place in places] for places in (best.labels, best.predicted))
    tables.write_table(folder / "confusion.csv", ("actual", "predicted"), zip(*named, strict=True))
    names = "Object.assign(window, {vega, vegaLite, vegaEmbed});"
    bundle = vl_convert.javascript_bundle(names, vl_version=_VEGA_LITE)
    (folder / "vega.js").write_text(bundle, encoding="utf-8")


def _short(text: str, most: int) -> str:
    """Both ends of it: what a name begins with, and what tells numbered ones apart."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _learning_curves(evaluation: Evaluation, path: Path) -> None:
    curve = [*evaluation.head_curve, *evaluation.curve]
    figures.learning_curves(path, curve, len(evaluation.head_curve))


def _confusion(evaluation: Evaluation, path: Path) -> None:
    data, known = evaluation.data, evaluation.best
    shown = np.arange(known.classes)
    if known.classes > _CONFUSED:  # no page has room for all
        wrong = ~known.right
        mistakes = sum(
            np.bincount(places[wrong], minlength=known.classes)
            for places in (known.labels, known.predicted)
        )
        shown = np.sort(np.argsort(-mistakes, kind="stable")[:_CONFUSED])
    counts = metrics.confusion(known.labels, known.predicted, shown)
    names = [data.classes[place] for place in shown]
    figures.confusion_matrix(path, counts, names, known.classes)


def _per_class(evaluation: Evaluation, path: Path) -> None:
    best, classes = evaluation.best, evaluation.data.classes
    figures.per_class_bars(path, metrics.per_class(best.labels, best.predicted, classes))


def _reliability(evaluation: Evaluation, path: Path) -> None:
    models = evaluation.models.items()
    figures.reliability(path, {name: metrics.reliability(known) for name, known in models})


def _mistakes(evaluation: Evaluation, path: Path) -> None:
    shown = [evaluation.captioned(place) for place in evaluation.mistakes[:_MISTAKES]]
    figures.gallery(path, shown, 6, "surest mistakes" if shown else "no mistakes")


def _confused_pairs(evaluation: Evaluation, path: Path) -> None:
    """The pairs of classes most often confused, a row each, either way round."""
    known, pairs = evaluation.best, {}
    for place in evaluation.mistakes:
        classes = (int(known.labels[place]), int(known.predicted[place]))
        pairs[int(place)] = (min(classes), max(classes))
    often = sorted(Counter(pairs.values()).items(), key=lambda item: (-item[1], item[0]))
    shown = []
    for pair, _ in often[:_PAIRS]:
        places = [place for place, of in pairs.items() if of == pair][:_OF_A_PAIR]
        shown += [evaluation.captioned(place) for place in places]
        shown += [evaluation.blank] * (_OF_A_PAIR - len(places))
    title = "classes most often confused, a row a pair" if shown else "no confused classes"
    figures.gallery(path, shown, _OF_A_PAIR, title)


def _neighbours(evaluation: Evaluation, path: Path) -> None:
    """The surest mistakes, each beside the training images most like it."""
    mistakes, train = evaluation.mistakes[:_HEATED], evaluation.data.indices("train")
    nearest = near_duplicates.nearest(evaluation.features, evaluation.rows[mistakes], train)
    shown = []
    for place, alike in zip(mistakes, nearest, strict=True):
        shown += [evaluation.captioned(place), *(evaluation.named(row) for row in alike)]
        shown += [evaluation.blank] * (_BESIDE - len(alike))
    title = "surest mistakes, and the training images most like each"
    figures.gallery(path, shown, 1 + _BESIDE, title if shown else "no mistakes")


def _label_errors(evaluation: Evaluation, path: Path) -> None:
    """Images that may be mislabelled, the most probable first."""
    data, shown = evaluation.data, []
    for suspect in evaluation.suspects[:_SUSPECTS]:
        row = data.rows[suspect.row]
        caption = (
            f"labelled {_short(row.label, 20)} {suspect.given:.2f}",
            f"rather {_short(data.classes[suspect.suggested], 20)} {suspect.probability:.2f}",
            _short(row.path, 30),
        )
        shown.append((data.images[suspect.row], "\n".join(caption)))
    count = len(evaluation.suspects)
    title = f"{count} most likely mislabelled" if shown else "none likely mislabelled"
    figures.gallery(path, shown, 6, title)


def _near_duplicates(evaluation: Evaluation, path: Path) -> None:
    """Images beside those that they are nearly the same as, the most alike first."""
    pairs = evaluation.pairs
    rows = [row for pair in pairs[:_ALIKE] for row in (pair.row, pair.other)]
    shown = [evaluation.named(row, split=True) for row in rows]
    title = f"{len(pairs)} near duplicates" if shown else "no near duplicates"
    figures.gallery(path, shown, 6, title)


def _grad_cam(evaluation: Evaluation, path: Path) -> None:
    """Grad-CAM of the surest mistakes, and beside it of right answers."""
    from pipeline.evaluation.gradcam import GradCam, overlay

    cam, known, mistakes = GradCam(evaluation.classifier), evaluation.best, evaluation.mistakes
    if cam.layer is None:
        figures.gallery(path, [], 6, "no layer keeps rows and columns")
        return
    right = np.setdiff1d(np.arange(len(evaluation.rows)), mistakes)
    right = right[np.argsort(-known.confidence[right], kind="stable")]
    half = min(_HEATED, len(mistakes))
    chosen = np.concatenate([mistakes[:half], right[: 2 * _HEATED - half]])
    images = evaluation.data.images[evaluation.rows[chosen]]
    shown = []
    for place, heat in zip(chosen, cam.maps(images, known.predicted[chosen]), strict=True):
        image, caption = evaluation.captioned(place)
        what = "what speaks for it" if heat.any() else "no region speaks for it"
        shown += [(image, caption), (overlay(image, heat), what)]
    figures.gallery(path, shown, 6, f"Grad-CAM at {cam.layer}")


PLOTS = {
    "learning_curves": Plot("Learning curves", _learning_curves),
    "confusion": Plot("Confusion matrix", _confusion),
    "per_class": Plot("By class", _per_class),
    "reliability": Plot("Calibration", _reliability),
    "mistakes": Plot("Surest mistakes", _mistakes),
    "confused_pairs": Plot("Most confused classes", _confused_pairs),
    "neighbours": Plot("Mistakes, and the training images most like each", _neighbours),
    "label_errors": Plot("Most likely mislabelled", _label_errors),
    "near_duplicates": Plot("Nearly the same as an image that training saw", _near_duplicates),
    "grad_cam": Plot("Grad-CAM", _grad_cam),
}
"""File -> plot, in the order of the report."""
