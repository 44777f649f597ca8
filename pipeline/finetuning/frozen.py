"""A frozen part in inference mode below a part that trains: fine-tuning without a cache."""

from typing import Any

import keras

from pipeline.networks.forward import pictures_apart


class FrozenBelow(keras.Model):
    """upper(lower(x)), where lower never trains, whatever `training` says.

    Calling a model with training=False inside another is not enough: in `fit` the
    outer mode wins for layers such as dropout. Here lower is called from scratch.

    Args:
        lower: (B, H, W, 3) -> (B, h, w, C).
        upper: (B, h, w, C) -> (B, K).
    """

    def __init__(self, lower: keras.Model, upper: keras.Model) -> None:
        super().__init__(name="frozen_below")
        self.lower, self.upper = pictures_apart(lower), upper
        self.build(lower.input_shape)

    def build(self, input_shape: Any) -> None:
        """Nothing is left to build."""
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """(B, H, W, 3) -> (B, K)."""
        return self.upper(self.lower(x, training=False), training=training)

    @property
    def output_shape(self) -> Any:
        """(None, K)."""
        return self.upper.output_shape
