"""Derive the settings of fine-tuning that are `auto` from the images and the network.

settings + number of images + backbone + the head's errors -> settings without `auto`, and the
reasons. An explicit value always wins. The lengths follow Kolesnikov et al. 2020, Big Transfer: a
minimum number of steps for small datasets, a number of epochs for larger ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.settings import is_auto
from pipeline.storage import tables
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

    from pipeline.finetuning.settings import Config

STEPS = 200
"""Minimum number of training steps."""
EPOCHS = 10
"""Number of epochs for a medium-sized dataset."""
MANY = 20_000
"""Number of images above which fewer epochs suffice."""
FEWEST_EPOCHS = 3
LEAST_PATIENCE = 4
"""Minimum number of epochs without improvement after which training stops."""
PATIENT = 0.2
"""Fraction of errors on the validation split from which training does not stop early. With fewer,
it stops after as large a share of the epochs: a head that is nearly always right is seldom
overtaken, while one that is often wrong is overtaken late, when the rate is low (NOTES.md)."""
_LEAST_SHARE = 0.25

EASY = 0.02
"""Fraction of errors on the validation split up to which the head is good enough for a high cut."""
BETWEEN = (0.2, 0.4)
"""Range for the fraction of the work below the cut. The layers below it, edges and textures,
suit any images; with much less above it, a network cannot adapt to images unlike those it was
trained on (NOTES.md)."""
HIGH = (0.65, 0.85)
"""The same if little can be gained: a step takes a third of the time."""

_RATE = 4e-4
_RATE_BATCH = 32


@dataclass(frozen=True)
class Errors:
    """Errors of the head on the validation split, which fine-tuning could correct.

    Attributes:
        share: Fraction of wrong predictions, or of the variance of numbers.
        text: The same in words.
    """

    share: float
    text: str

    @classmethod
    def of(cls, head: Path, images: int) -> Errors:
        """Read them from the output of train_head."""
        summary = tables.read_json(head / "summary.json")
        if "val_accuracy" not in summary:
            left = 1 - summary["val_r2"]
            return cls(left, f"the head leaves {left:.0%} of the variance unexplained")
        count = round((1 - summary["val_accuracy"]) * images)
        return cls(
            count / images,
            f"the head is wrong on {count} of {images} validation images, which leaves at most "
            f"{100 * count / images:.1f} points to gain there",
        )


def derive(
    config: Config, images: int, model: keras.Model, errors: Errors | None = None, rate: float = 1.0
) -> tuple[Config, dict[str, Derived]]:
    """Derive all settings that are `auto`.

    Args:
        config: Section `finetune`.
        images: Number of training images.
        model: The backbone.
        errors: Of the trained head; None before there is one.
        rate: `rate` of the task.

    Returns:
        The section without `auto`; full name -> derived value with reason.
    """
    may_stop = is_auto(config.epochs) and config.patience is None
    config, values = derive_numbers(config, images, rate)
    if may_stop:
        wrong = errors.share if errors else 0.0
        share = min(max(wrong / PATIENT, _LEAST_SHARE), 1.0)
        patience = max(LEAST_PATIENCE, math.ceil(share * int(config.epochs)))
        config = replace(config, patience=patience)
    if is_auto(config.cut):
        within = HIGH if errors and errors.share <= EASY else BETWEEN
        cut = automatic_cut(model, config.batch_norm == "train", within)
        cut = Derived(cut.value, f"{errors.text}; {cut.reason}" if errors else cut.reason)
        config, values = replace(config, cut=cut.value), {"finetune.cut": cut, **values}
    return config, values


def derive_numbers(config: Config, images: int, rate: float) -> tuple[Config, dict[str, Derived]]:
    """Derive everything except the cut, which needs the network."""
    derived: dict[str, Derived] = {}
    if is_auto(config.epochs):
        derived["finetune.epochs"] = epochs(images, config.batch_size)
    if is_auto(config.learning_rate):
        derived["finetune.learning_rate"] = learning_rate(config.batch_size, rate)
    values: dict[str, Any] = {name.partition(".")[2]: d.value for name, d in derived.items()}
    return replace(config, **values), derived


def epochs(images: int, batch_size: int) -> Derived:
    """Choose the number of epochs for a number of training images."""
    steps = math.ceil(images / batch_size)
    if images > MANY:
        fewer = max(FEWEST_EPOCHS, round(EPOCHS * math.sqrt(MANY / images)))
        return Derived(fewer, f"with {images} training images, fewer than {EPOCHS} suffice")
    if steps * EPOCHS >= STEPS:
        return Derived(EPOCHS, f"{steps * EPOCHS} steps for {images} training images")
    longer = math.ceil(STEPS / steps)
    return Derived(longer, f"at least {STEPS} steps for only {images} training images")


def learning_rate(batch_size: int, rate: float) -> Derived:
    """Choose AdamW's peak learning rate: it grows with the square root of the batch size."""
    peak = float(f"{rate * _RATE * math.sqrt(batch_size / _RATE_BATCH):.2g}")
    return Derived(peak, f"for AdamW with batches of {batch_size}")


def automatic_cut(
    model: keras.Model, batch_norm: bool, within: tuple[float, float] = BETWEEN
) -> Derived:
    """Choose the cut with the smallest activations in a part of the network.

    Args:
        model: A backbone.
        batch_norm: Train BatchNormalization too.
        within: Range for the fraction of the work below the cut.
    """
    from pipeline.features import cuts

    points = {point.name: point for point in cuts.describe(model)}
    # A trainable layer trains from the cut point below it; the first one above each counts.
    above: dict[str, str] = {}
    for layer in cuts.learning(model, batch_norm):
        above.setdefault(cuts.resolve(model, layer, batch_norm).at, layer)
    low, high = within
    between = [at for at in above if low <= points[at].flops_below <= high]
    at = (
        min(between, key=lambda name: points[name].bytes_per_image)
        if between
        else min(above, key=lambda name: abs(points[name].flops_below - low))
    )
    below = points[at]
    return Derived(
        above[at],
        f"{below.flops_below:.0%} of the work and {below.parameters_below:.0%} of the parameters "
        f"are below and computed once; {below.bytes_per_image / 1000:.0f} kB per image",
    )
