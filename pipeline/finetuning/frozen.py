"""A part that trains, above a frozen part or on its outputs; it mixes what is in between."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from pipeline.networks.forward import pictures_apart


class FrozenBelow(keras.Model):
    """upper(lower(x)), where lower never trains, whatever `training` says.

    Calling a model with training=False inside another is not enough: in `fit` the
    outer mode wins for layers such as dropout. Here lower is called from scratch.

    Args:
        lower: (B, H, W, 3) -> (B, h, w, C); None if the inputs are its outputs.
        upper: (B, h, w, C) -> (B, K).
    """

    def __init__(self, lower: keras.Model | None, upper: keras.Model) -> None:
        super().__init__(name="frozen_below")
        self.lower, self.upper = lower and pictures_apart(lower), upper
        self.build((lower or upper).input_shape)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, ...) -> (B, K); of mixtures, if x has partners and a share: see `mixing.mixed`."""
        inputs, *mixture = x if isinstance(x, (tuple, list)) else (x,)
        activations = inputs if self.lower is None else self.lower(inputs, training=False)
        if mixture:
            partners, share = mixture
            activations = share * activations + (1 - share) * tf.gather(activations, partners)
        return self.upper(activations, training=training)

    @property
    def output_shape(self) -> Any:
        """(None, K)."""
        return self.upper.output_shape
