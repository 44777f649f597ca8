"""A part that trains on mixtures of two examples' activations."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class Mixed(keras.Model):
    """upper(mixture), where each example of a batch has a partner in it.

    Args:
        upper: (B, h, w, C) -> (B, K).
    """

    def __init__(self, upper: keras.Model) -> None:
        super().__init__(name="mixed")
        self.upper = upper
        self.build(upper.input_shape)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, ...) -> (B, K); of mixtures, if x has partners and a share: see `mixing.mixed`."""
        activations, *mixture = x if isinstance(x, (tuple, list)) else (x,)
        if mixture:
            partners, share = mixture
            activations = share * activations + (1 - share) * tf.gather(activations, partners)
        return self.upper(activations, training=training)

    @property
    def output_shape(self) -> Any:
        """(None, K)."""
        return self.upper.output_shape
