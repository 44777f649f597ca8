"""The new top of the network: features -> class probabilities, and its join with a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.settings import REQUIRED, setting

if TYPE_CHECKING:
    import keras


@dataclass
class Config:
    """Section `head`."""

    use: str = setting(REQUIRED, "The new top of the network.", group="head")
    units: list[int] = setting(
        [], "Sizes of the hidden relu layers; none for a linear head.", least=1
    )
    dropout: float = setting(
        0.0, "Share of each hidden layer's outputs dropped while training.", least=0, below=1
    )


def build(config: Config, features: int, classes: int) -> keras.Model:
    """Build a head with fresh weights.

    Args:
        config: Section `head`.
        features: D.
        classes: K.

    Returns:
        (B, D) -> (B, K) probabilities.
    """
    import keras
    from keras import layers

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

    from pipeline.networks.graph import replay

    return keras.Model(body.inputs[0], replay(head, body.outputs[0]), name=name)
