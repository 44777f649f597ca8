"""Plots of an evaluation: curves, confusion, calibration, mistakes and their causes.

`Evaluation` -> plots/*.png, one for each that `of` lists, and the csv files that DVC plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.image_file import Pixels
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Facts, Plot, Suspect, Task, figures
from pipeline.data.tasks.facts import Labels
from pipeline.data.tasks.figures import short
from pipeline.evaluation import near_duplicates
from pipeline.evaluation.near_duplicates import Pair
from pipeline.storage import curves, progress, tables
from pipeline.storage.curves import Curve

if TYPE_CHECKING:
    import keras

_HEATED, _DUPLICATES = 6, 9
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
        decided: Its N predictions, as labels.
        classifier: The fine-tuned model.
        head_curve: Learning curve of the head.
        curve: Learning curve of fine-tuning.
        label_curve: From `label_curve.measure`.
        pairs: Near duplicates, the most similar first.
        suspects: Images with suspicious labels, the most likely errors first.
    """

    data: Manifest
    rows: Labels
    features: NDArray[np.float32]
    models: Mapping[str, Facts]
    decided: Sequence[str]
    classifier: keras.Model
    head_curve: Curve
    curve: Curve
    label_curve: Mapping[str, Any]
    pairs: Sequence[Pair]
    suspects: Sequence[Suspect]

    @property
    def best(self) -> Facts:
        """Facts of the fine-tuned model."""
        return self.models["fine_tuned"]

    @cached_property
    def mistakes(self) -> Labels:
        """Positions of the images with a mistake, the worst first."""
        wrong = np.flatnonzero(self.best.wrong)
        ordered: Labels = wrong[np.argsort(-self.best.confidence[wrong], kind="stable")]
        return ordered

    def captioned(self, place: int) -> tuple[Pixels, str]:
        """Return an image with its label, prediction and path."""
        row = self.data.rows[self.rows[place]]
        caption = (
            f"true {short(row.label, 24)}",
            self.best.caption(place, self.data.classes),
            short(row.path, 30),
        )
        return self.data.images[self.rows[place]], "\n".join(caption)

    def named(self, row: int, split: bool = False) -> tuple[Pixels, str]:
        """Return any image of the dataset with its label and path."""
        image = self.data.rows[row]
        begin = f"{image.split}: " if split else ""
        caption = f"{begin}{short(image.label, 20)}\n{short(image.path, 30)}"
        return self.data.images[row], caption

    @property
    def blank(self) -> tuple[Pixels, str]:
        """An empty place in a gallery."""
        return np.full_like(self.data.images[0], 255), ""


def write(folder: Path, evaluation: Evaluation) -> None:
    """Draw every plot into a new folder."""
    folder.mkdir()
    drawn = of(evaluation.data.task).items()
    for name, plot in progress.bar(drawn, "plots", unit="plot"):
        plot.draw(evaluation, folder / f"{name}.png")


def write_data(folder: Path, evaluation: Evaluation) -> None:
    """Write the data of `.dvc/plots.html`, and Vega to plot it offline."""
    import vl_convert

    folder.mkdir()
    data, curve = evaluation.data, [*evaluation.head_curve, *evaluation.curve]
    curves.write(folder / "learning_curves.csv", curve, data.task.quality)
    labels = [data.rows[row].label for row in evaluation.rows]
    kinds = data.task.strata([*labels, *evaluation.decided])
    pairs = zip(kinds[: len(labels)], kinds[len(labels) :], strict=True)
    tables.write_table(folder / "confusion.csv", ("label", "prediction"), pairs)
    exports = "Object.assign(window, {vega, vegaLite, vegaEmbed});"
    bundle = vl_convert.javascript_bundle(exports, vl_version=_VEGA_LITE)
    (folder / "vega.js").write_text(bundle, encoding="utf-8")


def _learning_curves(evaluation: Evaluation, path: Path) -> None:
    curves_of = evaluation.head_curve, evaluation.curve
    figures.learning_curves(path, *curves_of, evaluation.data.task.quality)


def _label_curve(evaluation: Evaluation, path: Path) -> None:
    figures.label_curve(path, evaluation.label_curve)


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
            f"label {short(row.label, 20)} {suspect.label_probability:.2f}",
            f"model {short(suspect.suggested, 20)} {suspect.probability:.2f}",
            short(row.path, 30),
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
    for place, heat in zip(chosen, cam.maps(images, facts.explained[chosen]), strict=True):
        image, caption = evaluation.captioned(place)
        text = "evidence for the prediction" if heat.any() else "no region is evidence"
        cards += [(image, caption), (overlay(image, heat), text)]
    figures.gallery(path, cards, 6, f"Grad-CAM at {cam.layer}")


def of(task: Task) -> dict[str, Plot]:
    """Map file to plot, in the order of the report."""
    return {
        "learning_curves": Plot("Learning curves", _learning_curves),
        "label_curve": Plot("Quality by number of labels", _label_curve),
        **task.plots,
        "neighbours": Plot("Mistakes and the most similar training images", _neighbours),
        "label_errors": Plot("Suspicious labels", _label_errors),
        "near_duplicates": Plot("Near duplicates of training images", _near_duplicates),
        "grad_cam": Plot("Grad-CAM", _grad_cam),
    }
