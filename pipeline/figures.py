"""Pictures of results, as PNG files of the same bytes for the same numbers."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

mpl.use("agg")

_BLUE, _ORANGE, _GREY = "#1f77b4", "#ff7f0e", "#888888"


def learning_curves(path: Path, curves: Sequence[dict[str, float]], hand_over: int) -> None:
    """Loss and accuracy by epoch, train and validation.

    Args:
        path: PNG to write.
        curves: Entries with epoch, loss, accuracy, val_loss, val_accuracy.
        hand_over: Last epoch of the head; fine-tuning follows.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    epochs = [entry["epoch"] for entry in curves]
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        axis.plot(epochs, [entry[name] for entry in curves], color=_BLUE, label="train")
        validation = [entry[f"val_{name}"] for entry in curves]
        axis.plot(epochs, validation, color=_ORANGE, label="validation")
        if epochs and max(epochs) > hand_over:
            axis.axvline(hand_over + 0.5, color=_GREY, linestyle="--")
            middle = axis.get_ylim()
            axis.text(hand_over + 0.5, sum(middle) / 2, " fine-tuning", color=_GREY)
        axis.set(xlabel="epoch", title=name)
        axis.legend()
    figure.savefig(path, dpi=100)


def confusion_matrix(path: Path, counts: NDArray[np.int64], classes: list[str]) -> None:
    """True by predicted class, shaded by the share of the true class.

    Args:
        path: PNG to write.
        counts: (K, K).
        classes: K names.
    """
    side = min(4 + 0.35 * len(classes), 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axis = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    places = range(len(classes))
    axis.set_xticks(places, classes, rotation=90 if max(map(len, classes)) > 3 else 0)
    axis.set_yticks(places, classes)
    axis.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = shares[row, column] > 0.5
                axis.text(
                    column, row, str(count), ha="center", va="center", color="w" if dark else "k"
                )
    figure.savefig(path, dpi=100)
