"""The new top of the network: features -> class probabilities, and its join with a backbone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclass
class Config:
    """Section `head`.

    Attributes:
        units: Sizes of the hidden relu layers; none for a linear head.
        dropout: Share of each hidden layer's outputs dropped while training.
    """

    units: list[int] = field(default_factory=list)
    dropout: float = 0.0


def build(config: Config, features: int, classes: int) -> keras.Model:
    """Build a head with fresh weights.

    Args:
        config: Section `head`.
        features: D.
        classes: K.

    Returns:
        (B, D) -> (B, K) probabilities.

    Raises:
        InputError: A size below 1, or a dropout that is no share.
    """
    import keras
    from keras import layers

    if any(units < 1 for units in config.units) or not 0 <= config.dropout < 1:
        raise InputError(
            f"head.units must be at least 1 and head.dropout in [0, 1), got {list(config.units)} "
            f"and {config.dropout}"
        )
    entry = x = keras.Input((features,), name="features_in")
    for place, units in enumerate(config.units, start=1):
        x = layers.Dense(units, activation="relu", name=f"head_dense{place}")(x)
        if config.dropout:
            x = layers.Dropout(config.dropout, name=f"head_dropout{place}")(x)
    x = layers.Dense(classes, name="head_logits")(x)
    return keras.Model(entry, layers.Softmax(name="probabilities")(x), name="head")


def join(body: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Put a head on a body that gives features. Weights are shared with both.

    Args:
        body: (B, ...) -> (B, D).
        head: (B, D) -> (B, K).
        name: Of the new model.

    Returns:
        (B, ...) -> (B, K).
    """
    import keras

    from pipeline.graph import replay

    return keras.Model(body.inputs[0], replay(head, body.outputs[0]), name=name)
