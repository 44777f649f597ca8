"""Images of results, as PNG files of the same bytes for the same numbers."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONTS = (
    *("DejaVu Sans", "IPAexGothic", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR"),
    *("Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Sans Thai"),
)

_BLUE, _ORANGE, _GREEN, _GREY = "#1f77b4", "#ff7f0e", "#2ca02c", "#888888"
_BARS_MAX = 40

Entry = Mapping[str, float]
Pixels = NDArray[np.uint8] | NDArray[np.float32]


@cache
def _fonts() -> list[str]:
    """List fallback fonts for other scripts, one of which is installed with pip."""
    from matplotlib import font_manager

    spec = importlib.util.find_spec("matplotlib_fontja")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).rglob("*.ttf")):
            font_manager.fontManager.addfont(path)
    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


@contextmanager
def _drawing(file: Path | io.BytesIO, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size in inches, whose text may be in any script, and save it."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.family": _fonts()}), warnings.catch_warnings():
        # A character that is in none of these fonts is drawn as a box.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(file, dpi=100, format="png")


def readable(text: str) -> str:
    """Escape text so that matplotlib does not treat it as a formula."""
    return text.replace("$", r"\$")


def short(text: str, most: int) -> str:
    """Shorten a text to its beginning and its end, which distinguishes numbered names."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def learning_curves(
    path: Path, head: Sequence[Entry], tuned: Sequence[Entry], quality: str
) -> None:
    """Plot loss and quality by epoch, for head training and fine-tuning separately.

    The dotted line is the validation result of the head-only model, where fine-tuning starts.
    `head` has one entry for a closed form, `tuned` none for a frozen backbone.
    """
    phases = {"head": head} if len(head) > 1 or not tuned else {}
    phases |= {"fine-tuning": tuned} if tuned else {}
    with _drawing(path, 9, 3.4 * len(phases)) as figure:
        rows = figure.subplots(len(phases), 2, squeeze=False)
        for (phase, curve), axes in zip(phases.items(), rows, strict=True):
            epochs = np.arange(1, len(curve) + 1)
            for axis, name in zip(axes, ("loss", quality), strict=True):
                for prefix, color, title in (("", _BLUE, "train"), ("val_", _ORANGE, "validation")):
                    values = [entry[f"{prefix}{name}"] for entry in curve]
                    axis.plot(epochs, values, ".-", color=color, label=title)
                if phase == "fine-tuning":
                    start = min(head, key=lambda entry: entry["val_score"])[f"val_{name}"]
                    axis.axhline(start, color=_GREY, linestyle=":", label="head only, validation")
                axis.set(xlabel="epoch", title=f"{phase}: {name}")
                axis.xaxis.get_major_locator().set_params(integer=True)
                axis.legend()


def confusion_matrix(
    path: Path,
    counts: NDArray[np.int64],
    classes: list[str],
    title: str = "",
    totals: NDArray[np.int64] | None = None,
) -> None:
    """Plot (k, k) counts of true by predicted class, shaded by the fraction of the true class.

    `totals` are the images of each true class: by default the sums of the rows.
    """
    names = [readable(name) for name in classes]
    side = min(4 + 0.35 * len(classes), 16)
    with _drawing(path, side, side) as figure:
        axis = figure.subplots()
        whole = counts.sum(axis=1) if totals is None else totals
        shares = counts / np.maximum(whole[:, None], 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(classes))
        size = min(10, 900 / len(classes))  # points, so that labels do not overlap
        rotation = 90 if max(map(len, classes)) > 3 else 0
        axis.set_xticks(places, names, rotation=rotation, fontsize=size)
        axis.set_yticks(places, names, fontsize=size)
        axis.set(xlabel="predicted", ylabel="true", title=title)
        if len(classes) <= 30:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    dark = shares[row, column] > 0.5
                    axis.text(
                        column,
                        row,
                        str(count),
                        ha="center",
                        va="center",
                        color="w" if dark else "k",
                    )


def per_class_bars(path: Path, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Plot precision and recall of each class, lowest F1 on top; at most 40 of them."""
    ordered = sorted(scores, key=lambda name: scores[name]["f1"])[:_BARS_MAX][::-1]
    names = [f"{readable(label)} ({scores[label]['support']:.0f})" for label in ordered]
    part = f"{len(ordered)} of {len(scores)} classes, lowest F1 first"
    title = "by class" if len(ordered) == len(scores) else part
    with _drawing(path, 7, 1.2 + 0.3 * len(ordered)) as figure:
        axis = figure.subplots()
        places = np.arange(len(ordered))
        for shift, (name, color) in zip(
            (0.2, -0.2), (("precision", _BLUE), ("recall", _ORANGE)), strict=True
        ):
            values = [scores[label][name] for label in ordered]
            axis.barh(places + shift, values, height=0.38, color=color, label=name)
        axis.set_yticks(places, names)
        axis.set(xlim=(0, 1), title=f"{title} (images)")
        axis.margins(y=0.01)
        figure.legend(loc="outside lower center", ncols=2)


def reliability(path: Path, models: Mapping[str, NDArray[np.float64]]) -> None:
    """Plot accuracy against confidence, one line per model; the diagonal is perfect calibration.

    `models` is name -> number of images, mean confidence and accuracy of each bin.
    """
    with _drawing(path, 6, 6) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="perfectly calibrated")
        for (name, (counts, confidences, accuracies)), color in zip(
            models.items(), (_BLUE, _ORANGE, _GREEN), strict=False
        ):
            sizes = f"{counts.min():.0f} to {counts.max():.0f} images per point"
            axis.plot(confidences, accuracies, "o-", color=color, label=f"{name} ({sizes})")
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        axis.legend()


def curves(path: Path, lines: Mapping[str, tuple[Any, Any]], x: str, y: str) -> None:
    """Plot lines between 0 and 1: name -> values of x and of y."""
    with _drawing(path, 7, 6) as figure:
        axis = figure.subplots()
        for name, values in lines.items():
            axis.plot(*values, label=readable(name))
        axis.set(xlabel=x, ylabel=y, xlim=(0, 1.02), ylim=(0, 1.02))
        if lines:
            axis.legend(fontsize=8)


def scatter(path: Path, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
    """Plot predicted against true numbers; the diagonal is perfect."""
    with _drawing(path, 6.5, 6) as figure:
        axis = figure.subplots()
        ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
        axis.plot(ends, ends, color=_GREY, linestyle="--", label="perfect")
        axis.plot(truth, predicted, ".", color=_BLUE, alpha=0.5)
        axis.set(xlabel="true", ylabel="predicted")
        axis.legend()


def residuals(path: Path, errors: Mapping[str, NDArray[Any]]) -> None:
    """Plot the distribution of predicted minus true numbers, one outline per model."""
    with _drawing(path, 7, 4.5) as figure:
        axis = figure.subplots()
        edges = np.histogram_bin_edges(np.concatenate(list(errors.values())), 40)
        for name, values in errors.items():
            axis.hist(values, edges.tolist(), histtype="step", label=name)
        axis.axvline(0, color=_GREY, linestyle="--")
        axis.set(xlabel="predicted minus true", ylabel="images")
        axis.legend()


def label_curve(path: Path, curve: Mapping[str, Any]) -> None:
    """Plot a metric of the head against the number of labels, from `label_curve.measure`."""
    with _drawing(path, 7, 4.5) as figure:
        axis = figure.subplots()
        if curve:
            values, lows, highs = (
                np.array([value[end] for value in curve["values"]])
                for end in ("value", "low", "high")
            )
            bars = [values - lows, highs - values]
            axis.errorbar(curve["labels"], values, bars, fmt="o-", color=_BLUE, capsize=4)
            axis.set_xscale("log", base=2)
            axis.set_xticks(curve["labels"], list(map(str, curve["labels"])))
        title = "head on frozen features" if curve else "not measured: too many images or classes"
        name = curve.get("metric", "").replace("_", " ")
        axis.set(xlabel="labels of training images", ylabel=name, title=title)


def histograms(samples: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> bytes:
    """Plot two distributions for each trait, at training and now, overlaid; returns a PNG."""
    rows = -(-len(samples) // 4)
    file = io.BytesIO()
    with _drawing(file, 12, 2.6 * rows) as figure:
        axes = figure.subplots(rows, 4, squeeze=False).ravel()
        for axis in axes[len(samples) :]:
            axis.axis("off")
        for axis, (name, pair) in zip(axes, samples.items(), strict=False):
            edges = np.histogram_bin_edges(np.concatenate([np.asarray(v) for v in pair]), 24)
            for values, color, name_of in zip(
                pair, (_BLUE, _ORANGE), ("at training", "now"), strict=True
            ):
                shares = np.full(len(values), 1 / len(values))
                axis.hist(values, edges, weights=shares, color=color, alpha=0.55, label=name_of)
            axis.set(title=name)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return file.getvalue()


def gallery(path: Path, images: Sequence[tuple[Pixels, str]], columns: int, title: str) -> None:
    """Draw images, (size, size, 3) uint8 or float RGB, in rows, each with a caption."""
    captions = [readable(caption) for _, caption in images]
    rows = max(1, -(-len(images) // columns))
    with _drawing(path, 2.1 * columns, 0.5 + 2.6 * rows) as figure:
        figure.suptitle(title)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, (pixels, _), caption in zip(axes, images, captions, strict=False):
            axis.imshow(pixels)
            axis.set_title(caption, fontsize=8, y=-0.05, va="top")
