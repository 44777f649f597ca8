"""Find the feature tensor of a classifier by structure, not by position.

model -> the input of its classification layer, or its output if it has none.
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
"""Activations of a final dense layer that returns classes; others, such as ReLU, return features.
Features below an embedding are as good, so if a name can mean both, it counts as a head.
"""


@dataclass(frozen=True)
class Selected:
    """The features of a model.

    Attributes:
        features: (B, D), or (B, H, W, C) to be pooled.
        why: Explanation with the layers' names.
    """

    features: KerasTensor
    why: str


def find(model: keras.Model) -> Selected:
    """Find the features of a model.

    Args:
        model: Model with one output, nested models expanded.
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
    whole = Selected(output, f"the output of {makers[id(output)].operation.name}: it has no head")
    if isinstance(layer, keras.layers.Dense):
        activations = {_activation(layer), *map(_activation, after)} - {None}
        if activations & _CLASSIFYING == activations or "softmax" in activations:
            return _before_hidden(node, makers)
        return whole
    one_by_one = isinstance(layer, keras.layers.Conv2D) and set(layer.kernel_size) == {1}
    classes = any(_activation(item) in ("softmax", "sigmoid") for item in (layer, *after))
    if one_by_one and classes:
        return Selected(node.input_tensors[0], f"the input of the head {layer.name}")
    return whole


def _refuse_image(model: keras.Model) -> None:
    """Stop at an autoencoder or similar network, whose output is again an image.

    Raises:
        InputError: The message names the layer with the fewest values, most often the code.
    """
    from pipeline.networks import graph

    (entry,), (output,) = model.inputs, model.outputs
    shape_in, shape_out = tuple(entry.shape[1:]), tuple(output.shape[1:])
    as_large = len(shape_out) == 3 and shape_out[:2] == shape_in[:2] and shape_out[2] in (1, 3)
    sizes = {math.prod(shape_in), math.prod(shape_in[:2])}
    if not (as_large or math.prod(shape_out) in sizes):
        return
    inside = [node for node in graph.nodes(model) if len(node.outputs[0].shape) in (2, 4)]
    code = min(inside, key=lambda node: math.prod(node.outputs[0].shape[1:])).operation.name
    raise InputError(
        f"the model returns an image ({' x '.join(map(str, shape_out))} values), not features: "
        f"set backbone.features to the layer with its code, possibly {code}"
    )


def _before_hidden(head: Any, makers: dict[int, Any]) -> Selected:
    """Return the pooled features below a head's hidden layers, which were made for its classes.

    Hidden layers on a flattened map, as in VGG16, belong to the backbone.
    """
    import keras

    pools = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    direct = Selected(head.input_tensors[0], f"the input of the head {head.operation.name}")
    node = makers[id(head.input_tensors[0])]
    hidden = 0
    while not node.is_input:
        if isinstance(node.operation, pools):
            name = node.operation.name
            why = f"the output of {name}, below the hidden layers of the head"
            return Selected(node.outputs[0], why) if hidden else direct
        hidden += isinstance(node.operation, keras.layers.Dense)
        if not isinstance(node.operation, keras.layers.Dense) and not _passes_on(node.operation):
            return direct
        node = makers[id(node.input_tensors[0])]
    return direct


def _passes_on(operation: Any) -> bool:
    """Check that an operation after a head only reshapes, scales or squashes its output."""
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
