"""The project's own small network, pre-trained on rendered letters; it has never seen a digit.

Three blocks of two 3x3 convolutions with BatchNorm. `make pretrain` regenerates the weights beside
this file bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.networks.backbones import Backbone, BackboneConfig, weights_file
from pipeline.settings import setting

if TYPE_CHECKING:
    import keras

WEIGHTS = Path(__file__).with_suffix(".weights.h5")
FILTERS = (32, 64, 128)


@dataclass
class Config(BackboneConfig):
    """Settings of glyph_cnn."""

    kind: str = "glyph_cnn"
    weights: str | None = setting(
        "letters", "letters for the included weights, null for random weights, or a path."
    )


SIDES = (4, 32)
"""Smallest and largest side in px for which the weights are useful."""


def sides(_: Config) -> tuple[int, int]:
    """Return the smallest and largest side in px."""
    return SIDES


def build(config: Config, image_size: int) -> Backbone:
    """Build glyph_cnn for images of `image_size` px."""
    least, most = SIDES
    if not least <= image_size <= most:
        raise InputError(
            f"prepare.image_size must be {least} to {most} for glyph_cnn, got {image_size}: it was "
            "trained on 8 px; use another backbone for photographs"
        )
    model = network(image_size)
    if config.weights is not None:
        shipped = config.weights == "letters"
        file = WEIGHTS if shipped else weights_file(config.weights, "backbone.weights")
        model.load_weights(file)
    return Backbone(model, "glyph_cnn")


def network(image_size: int) -> keras.Model:
    """Build (B, H, W, 3) RGB in [0, 255] -> (B, H/2 * W/2 * 128), with random weights."""
    import keras
    from keras import layers

    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.ops.image.rgb_to_grayscale(images)
    x = layers.Rescaling(1 / 255, name="unit_range")(x)
    for block, filters in enumerate(FILTERS, start=1):
        if block == 2:
            x = layers.MaxPooling2D(name="block2_pool")(x)
        for conv in (1, 2):
            name = f"block{block}_conv{conv}"
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(x)
            x = layers.BatchNormalization(name=f"{name}_bn")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
    # The position of a stroke matters as much as its presence: no average over positions.
    features = layers.Flatten(name="features")(x)
    return keras.Model(images, features, name="glyph_cnn")
