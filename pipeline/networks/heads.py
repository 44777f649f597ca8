"""The new top of the network: features -> class probabilities, and joining it to a backbone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.data.tasks import Targets, Task, classification
from pipeline.errors import InputError
from pipeline.settings import REQUIRED, setting

if TYPE_CHECKING:
    import keras


class Solver(StrEnum):
    """Method of fitting a head to features."""

    adam = "adam"
    lbfgs = "lbfgs"


@dataclass
class Config:
    """Section `head`."""

    use: str = setting(REQUIRED, "Type of head.", group="head")
    solver: Solver = setting(
        Solver.adam,
        "Fitting method: adam, configured by train_head; or lbfgs, logistic regression with "
        "regularization chosen by cross-validation.",
    )
    units: list[int] = setting([], "Sizes of hidden ReLU layers; empty for a linear head.", least=1)
    dropout: float = setting(0.0, "Dropout rate after each hidden layer.", least=0, below=1)

    def check(self, section: str) -> None:
        """Check that the solver supports the layers."""
        if self.solver == Solver.lbfgs and self.units:
            raise InputError(
                f"{section}.solver=lbfgs does not support hidden layers, got {section}.units="
                f"{self.units}: set {section}.units=[] or {section}.solver=adam"
            )


_HEAD = re.compile(r"head_(dense|dropout)\d+|head_logits|temperature|probabilities|scaled|value")
"""Names of a head's layers, including calibration."""


def build(
    config: Config,
    features: int,
    classes: int,
    task: Task = classification.TASK,
    targets: Targets | None = None,
) -> keras.Model:
    """Build a head with fresh weights.

    Args:
        config: Section `head`.
        features: D.
        classes: K.
        task: What is predicted.
        targets: Targets of train, for the scale of numbers.

    Returns:
        (B, D) -> (B, K) outputs.
    """
    import keras
    from keras import layers

    entry = x = keras.Input((features,), name="features_in")
    for place, units in enumerate(config.units, start=1):
        x = layers.Dense(units, activation="relu", name=f"head_dense{place}")(x)
        if config.dropout:
            x = layers.Dropout(config.dropout, name=f"head_dropout{place}")(x)
    x = layers.Dense(classes, name="head_logits")(x)
    return keras.Model(entry, task.outputs(x, targets), name="head")


def join(body: keras.Model, head: keras.Model, name: str) -> keras.Model:
    """Join a head, (B, D) -> (B, K), to a body that returns (B, D); both share their weights."""
    import keras

    from pipeline.networks.graph import replay

    return keras.Model(body.inputs[0], replay(head, body.outputs[0]), name=name)


def with_features(classifier: keras.Model) -> keras.Model:
    """Extend a classifier from `join`, sharing weights: (B, K + D) probabilities, then features."""
    import keras

    both = [
        keras.ops.cast(tensor, "float32") for tensor in (*classifier.outputs, features(classifier))
    ]
    whole = keras.layers.Concatenate(name="answers")(both)
    return keras.Model(classifier.inputs[0], whole, name=classifier.name)


def features(classifier: keras.Model) -> keras.KerasTensor:
    """Return the (B, D) tensor that the head of a classifier from `join` takes."""
    from pipeline.networks import graph

    makers = {id(tensor): node for node in graph.nodes(classifier) for tensor in node.outputs}
    (tensor,) = classifier.outputs
    while _HEAD.fullmatch(makers[id(tensor)].operation.name):
        tensor = makers[id(tensor)].input_tensors[0]
    return tensor
