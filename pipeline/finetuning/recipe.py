"""What fine-tuning does where its settings say `auto`: derived from the images and the network.

settings + number of images + backbone -> settings without `auto`, and the reasons. An explicit
value always wins. The lengths follow Kolesnikov et al. 2020, Big Transfer: at least a number of
steps where images are few, a number of epochs where they are not.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.settings import is_auto
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

    from pipeline.finetuning.settings import Config

STEPS = 250
"""At least, however few the images are."""
EPOCHS = 12
"""Of a data set of medium size."""
MANY = 20_000
"""Images from which on fewer epochs do."""
FEWEST_EPOCHS = 5

BETWEEN = (0.2, 0.4)
"""Fraction of the work that may lie below the cut. Layers lower than that, edges and textures,
serve any images as they are; with much less above, a network cannot adapt to images far from those
it was trained on (NOTES.md)."""

_RATE = 3e-4
_RATE_BATCH = 32


def derive(config: Config, images: int, model: keras.Model) -> tuple[Config, dict[str, Derived]]:
    """Put a value where a setting says `auto`.

    Args:
        config: Section `finetune`.
        images: In the train split.
        model: The backbone.

    Returns:
        The section without `auto`; full name -> what was derived and why.
    """
    config, found = derive_numbers(config, images)
    if is_auto(config.cut):
        cut = automatic_cut(model, config.batch_norm == "train")
        config, found = replace(config, cut=cut.value), {"finetune.cut": cut, **found}
    return config, found


def derive_numbers(config: Config, images: int) -> tuple[Config, dict[str, Derived]]:
    """The same for all but the cut, which alone needs the network."""
    derived: dict[str, Derived] = {}
    if is_auto(config.epochs):
        derived["finetune.epochs"] = epochs(images, config.batch_size)
    if is_auto(config.learning_rate):
        derived["finetune.learning_rate"] = learning_rate(config.batch_size)
    values: dict[str, Any] = {name.partition(".")[2]: one.value for name, one in derived.items()}
    return replace(config, **values), derived


def epochs(images: int, batch_size: int) -> Derived:
    """How long to train.

    Args:
        images: In the train split.
        batch_size: Images a step.
    """
    steps = math.ceil(images / batch_size)
    if images > MANY:
        fewer = max(FEWEST_EPOCHS, round(EPOCHS * math.sqrt(MANY / images)))
        return Derived(fewer, f"{images} training images need fewer than {EPOCHS}")
    if steps * EPOCHS >= STEPS:
        return Derived(EPOCHS, f"enough for {images} training images: {steps * EPOCHS} steps")
    longer = math.ceil(STEPS / steps)
    return Derived(longer, f"{images} training images are few: {STEPS} steps at least")


def learning_rate(batch_size: int) -> Derived:
    """The highest rate of AdamW: with the square root of the batch, as its noise falls.

    Args:
        batch_size: Images a step.
    """
    rate = float(f"{_RATE * math.sqrt(batch_size / _RATE_BATCH):.2g}")
    return Derived(rate, f"of AdamW, for batches of {batch_size}")


def automatic_cut(model: keras.Model, batch_norm: bool) -> Derived:
    """Choose the cut with the smallest activations among those with enough to train above.

    Args:
        model: A backbone.
        batch_norm: Whether BatchNormalization trains too.
    """
    from pipeline.features import cuts

    points = {point.name: point for point in cuts.describe(model)}
    # A layer that learns trains from the cut point below it; the first one above each counts.
    above: dict[str, str] = {}
    for layer in cuts.learning_layers(model, batch_norm):
        above.setdefault(cuts.resolve(model, layer, batch_norm).at, layer)
    low, high = BETWEEN
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
        f"lie below, computed once; {below.bytes_per_image / 1000:.0f} kB an image",
    )
