"""Pictures of an evaluation: curves, counts, calibration, mistakes and what led to them.

labels + probabilities + pictures -> plots/*.png, the csv files that DVC plots and what draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.images import Pixels
from pipeline.data.manifest import Manifest
from pipeline.evaluation import figures, metrics, near_duplicates
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.label_errors import Suspect
from pipeline.evaluation.near_duplicates import Pair
from pipeline.storage import tables
from pipeline.training import curves

if TYPE_CHECKING:
    import keras

_MISTAKES, _PAIRS, _OF_A_PAIR, _HEATED, _ALIKE, _CONFUSED = 12, 4, 5, 6, 9, 100
_SUSPECTS, _BESIDE = 24, 5
# DVC's templates are written for Vega-Lite 5.
_VEGA_LITE = "5.21"


def write(
    folder: Path,
    data: Manifest,
    rows: Labels,
    models: Mapping[str, Facts],
    model: keras.Model,
    head: Path,
    finetuned: Path,
) -> None:
    """Draw everything.

    Args:
        folder: To make and fill.
        data: The prepared data set.
        rows: (N,) the rows of `data.images` that were judged.
        models: Name -> facts with probabilities; `fine_tuned` is looked at closely.
        model: The fine-tuned classifier.
        head: Output of train_head.
        finetuned: Output of finetune.
    """
    folder.mkdir()
    best = models["fine_tuned"]
    assert best.probabilities is not None
    scores = metrics.per_class(best.labels, best.predicted, data.classes)
    bins = {name: metrics.reliability(known) for name, known in models.items()}
    mistakes = most_confident_mistakes(best)
    shown = best.probabilities
    drawn: list[Callable[[], None]] = [
        lambda: _curves(folder, head, finetuned),
        lambda: _confusion(folder, data, best),
        lambda: figures.per_class_bars(folder / "per_class.png", scores),
        lambda: figures.reliability(folder / "reliability.png", bins),
        lambda: _mistakes(folder, data, rows, shown, mistakes[:_MISTAKES]),
        lambda: _confused_pairs(folder, data, rows, best, mistakes),
        lambda: _heat_maps(folder, data, rows, best, mistakes, model),
        lambda: _vega(folder),
    ]
    for draw in tqdm(drawn, desc="plots", unit="plot", delay=1, leave=False, disable=None):
        draw()


def near_duplicates_of(folder: Path, data: Manifest, pairs: Sequence[Pair]) -> None:
    """Draw pictures beside those that they are nearly the same as, the most alike first.

    Args:
        folder: Of the plots.
        data: The prepared data set.
        pairs: As `near_duplicates.find` gives them.
    """
    shown = []
    for pair in pairs[:_ALIKE]:
        for row in (pair.row, pair.other):
            one = data.rows[row]
            told = f"{one.split}: {_short(one.label, 20)}\n{_short(one.path, 30)}"
            shown.append((data.images[row], told))
    title = f"{len(pairs)} near duplicates" if shown else "no near duplicates"
    figures.gallery(folder / "near_duplicates.png", shown, 6, title)


def label_errors(folder: Path, data: Manifest, suspects: Sequence[Suspect]) -> None:
    """Draw pictures that are probably mislabelled, the most probable first.

    Args:
        folder: Of the plots.
        data: The prepared data set.
        suspects: As `label_errors.find` gives them.
    """
    shown = []
    for one in suspects[:_SUSPECTS]:
        row = data.rows[one.row]
        told = (
            f"labelled {_short(row.label, 20)} {one.given:.2f}",
            f"rather {_short(data.classes[one.suggested], 20)} {one.probability:.2f}",
            _short(row.path, 30),
        )
        shown.append((data.images[one.row], "\n".join(told)))
    title = f"{len(suspects)} most likely mislabelled" if shown else "none likely mislabelled"
    figures.gallery(folder / "label_errors.png", shown, 6, title)


def neighbours(
    folder: Path, data: Manifest, rows: Labels, known: Facts, features: NDArray[np.float32]
) -> None:
    """Draw the surest mistakes, each beside the training pictures most like it.

    Args:
        folder: Of the plots.
        data: The prepared data set.
        rows: (N,) that were judged.
        known: Facts of them, with probabilities.
        features: (., D) of all pictures, by which likeness is told.
    """
    mistakes, train = most_confident_mistakes(known)[:_HEATED], data.indices("train")
    assert known.probabilities is not None
    shown = []
    for place, alike in zip(
        mistakes, near_duplicates.nearest(features, rows[mistakes], train), strict=True
    ):
        shown.append(_captioned(data, rows[place], known.probabilities[place]))
        for row in alike:
            one = data.rows[row]
            shown.append((data.images[row], f"{_short(one.label, 20)}\n{_short(one.path, 30)}"))
        shown += [(np.full_like(data.images[0], 255), "")] * (_BESIDE - len(alike))
    title = "surest mistakes, and the training pictures most like each"
    figures.gallery(
        folder / "neighbours.png", shown, 1 + _BESIDE, title if shown else "no mistakes"
    )


def _vega(folder: Path) -> None:
    """Lay beside the csv files what `.dvc/plots.html` draws them with, without the internet."""
    import vl_convert

    names = "Object.assign(window, {vega, vegaLite, vegaEmbed});"
    bundle = vl_convert.javascript_bundle(names, vl_version=_VEGA_LITE)
    (folder / "vega.js").write_text(bundle, encoding="utf-8")


def most_confident_mistakes(known: Facts) -> Labels:
    """Places of the wrongly classified pictures, the surest first."""
    wrong = np.flatnonzero(~known.right)
    ordered: Labels = wrong[np.argsort(-known.confidence[wrong], kind="stable")]
    return ordered


def _curves(folder: Path, head: Path, finetuned: Path) -> None:
    head_curve = curves.read(head)
    curve = [*head_curve, *curves.read(finetuned)]
    curves.write(folder / "learning_curves.csv", curve)
    figures.learning_curves(folder / "learning_curves.png", curve, len(head_curve))


def _confusion(folder: Path, data: Manifest, known: Facts) -> None:
    named = (
        [data.classes[place] for place in places] for places in (known.labels, known.predicted)
    )
    tables.write_table(folder / "confusion.csv", ("actual", "predicted"), zip(*named, strict=True))
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
    figures.confusion_matrix(folder / "confusion.png", counts, names, known.classes)


def _captioned(data: Manifest, row: int, values: NDArray[np.float32]) -> tuple[Pixels, str]:
    """A picture, what it is, what the classifier takes it for, and where it comes from."""
    predicted = int(values.argmax())
    caption = (
        f"true {_short(data.rows[row].label, 24)}",
        f"predicted {_short(data.classes[predicted], 18)} {values[predicted]:.2f}",
        _short(data.rows[row].path, 30),
    )
    return data.images[row], "\n".join(caption)


def _short(text: str, most: int) -> str:
    """Both ends of it: what a name begins with, and what tells numbered ones apart."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def _mistakes(
    folder: Path,
    data: Manifest,
    rows: Labels,
    probabilities: NDArray[np.float32],
    mistakes: Labels,
) -> None:
    shown = [_captioned(data, rows[place], probabilities[place]) for place in mistakes]
    title = "surest mistakes" if shown else "no mistakes"
    figures.gallery(folder / "mistakes.png", shown, 6, title)


def _confused_pairs(
    folder: Path,
    data: Manifest,
    rows: Labels,
    known: Facts,
    mistakes: Labels,
) -> None:
    """The pairs of classes most often confused, a row each, either way round."""
    probabilities, pairs = known.probabilities, {}
    assert probabilities is not None
    for place in mistakes:
        classes = (int(known.labels[place]), int(known.predicted[place]))
        pairs[int(place)] = (min(classes), max(classes))
    often = sorted(Counter(pairs.values()).items(), key=lambda item: (-item[1], item[0]))
    shown = []
    for pair, _ in often[:_PAIRS]:
        places = [place for place, of in pairs.items() if of == pair][:_OF_A_PAIR]
        shown += [_captioned(data, rows[place], probabilities[place]) for place in places]
        blank = np.full_like(data.images[0], 255)
        shown += [(blank, "")] * (_OF_A_PAIR - len(places))
    title = "classes most often confused, a row a pair" if shown else "no confused classes"
    figures.gallery(folder / "confused_pairs.png", shown, _OF_A_PAIR, title)


def _heat_maps(
    folder: Path,
    data: Manifest,
    rows: Labels,
    known: Facts,
    mistakes: Labels,
    model: keras.Model,
) -> None:
    """Grad-CAM of the surest mistakes, and beside it of right answers."""
    from pipeline.evaluation.gradcam import GradCam, overlay

    cam, probabilities = GradCam(model), known.probabilities
    assert probabilities is not None
    right = np.setdiff1d(np.arange(len(rows)), mistakes)
    right = right[np.argsort(-known.confidence[right], kind="stable")]
    half = min(_HEATED, len(mistakes))
    chosen = np.concatenate([mistakes[:half], right[: 2 * _HEATED - half]])
    if cam.layer is None:
        figures.gallery(folder / "grad_cam.png", [], 6, "no layer keeps rows and columns")
        return
    maps = cam.maps(data.images[rows[chosen]], known.predicted[chosen])
    shown = []
    for place, heat in zip(chosen, maps, strict=True):
        picture, told = _captioned(data, rows[place], probabilities[place])
        what = "what speaks for it" if heat.any() else "no region speaks for it"
        shown += [(picture, told), (overlay(picture, heat), what)]
    figures.gallery(folder / "grad_cam.png", shown, 6, f"Grad-CAM at {cam.layer}")
