"""Which tensor of a classifier are its features: found by structure, not by place.

model -> the input of its classifying layer, or its output if it has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

_CLASSIFYING = {
    *("softmax", "log_softmax", "sparsemax", "sigmoid", "hard_sigmoid", "log_sigmoid", "linear"),
    *("tanh", "hard_tanh", "soft_sign", "softsign", "exponential"),
}
"""Activations of a last dense layer that gives classes; one with another, as ReLU, gives features.

The features below an embedding are as good, so where a name can mean both, it is a head.
"""


@dataclass(frozen=True)
class Taken:
    """What was taken as features.

    Attributes:
        features: (B, D), or (B, H, W, C) that is to be pooled.
        why: In words, with the layers' names.
    """

    features: KerasTensor
    why: str


def find(model: keras.Model) -> Taken:
    """Find the features of a model without being told.

    Args:
        model: With one output, its models inside opened.
    """
    import keras

    from pipeline.networks import graph

    (output,) = model.outputs
    makers = {id(tensor): node for node in graph.nodes(model) for tensor in node.outputs}
    node, after = makers[id(output)], []
    while not node.is_input and _passes_on(node.operation):
        after.append(node.operation)
        node = makers[id(node.input_tensors[0])]
    layer = node.operation
    _refuse_image(model)
    whole = Taken(output, f"the output of {makers[id(output)].operation.name}: it has no head")
    if isinstance(layer, keras.layers.Dense):
        activations = {_activation(layer), *map(_activation, after)} - {None}
        if activations & _CLASSIFYING == activations or "softmax" in activations:
            return _before_hidden(node, makers)
        return whole
    one_by_one = isinstance(layer, keras.layers.Conv2D) and set(layer.kernel_size) == {1}
    classes = any(_activation(one) in ("softmax", "sigmoid") for one in (layer, *after))
    if one_by_one and classes:
        return Taken(node.input_tensors[0], f"what the head {layer.name} sees")
    return whole


def _refuse_image(model: keras.Model) -> None:
    """Stop at an autoencoder or a like network, whose output is an image again.

    Raises:
        InputError: The message names the layer with the fewest values, most often the code.
    """
    from pipeline.networks import graph

    (entry,), (output,) = model.inputs, model.outputs
    given, made = tuple(entry.shape[1:]), tuple(output.shape[1:])
    as_large = len(made) == 3 and made[:2] == given[:2] and made[2] in (1, 3)
    if not (as_large or math.prod(made) in {math.prod(given), math.prod(given[:2])}):
        return
    inside = [node for node in graph.nodes(model) if len(node.outputs[0].shape) in (2, 4)]
    code = min(inside, key=lambda node: math.prod(node.outputs[0].shape[1:])).operation.name
    raise InputError(
        f"the model's output is an image again, {' x '.join(map(str, made))} values, and no "
        f"features: set backbone.features to the layer with its code, which may be {code}"
    )


def _before_hidden(head: Any, makers: dict[int, Any]) -> Taken:
    """What a head sees: the pooled features below hidden layers, which were made for its classes.

    Hidden layers on a flattened map, as in VGG16, are a backbone's own.
    """
    import keras

    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    seen = Taken(head.input_tensors[0], f"what the head {head.operation.name} sees")
    node = makers[id(head.input_tensors[0])]
    hidden = 0
    while not node.is_input:
        if isinstance(node.operation, pools):
            name = node.operation.name
            told = f"the output of {name}, below the hidden layers of the head"
            return Taken(node.outputs[0], told) if hidden else seen
        hidden += isinstance(node.operation, keras.layers.Dense)
        if not isinstance(node.operation, keras.layers.Dense) and not _passes_on(node.operation):
            return seen
        node = makers[id(node.input_tensors[0])]
    return seen


def _passes_on(operation: Any) -> bool:
    """Whether an operation after a head only reshapes, scales or squashes what it gave."""
    import keras

    kinds = (
        keras.layers.GlobalAveragePooling2D,
        keras.layers.GlobalMaxPooling2D,
        keras.layers.Activation,
        keras.layers.Softmax,
        keras.layers.Dropout,
        keras.layers.Rescaling,
        keras.layers.Reshape,
        keras.layers.Flatten,
        keras.layers.BatchNormalization,
    )
    return isinstance(operation, kinds)


def _activation(layer: Any) -> str | None:
    import keras

    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    function = getattr(layer, "activation", None)
    return getattr(function, "__name__", None)
