"""Count the floating-point operations of a forward pass, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from pipeline.networks import graph


def of_call(node: Any) -> int:
    """Count the operations of a layer's call on one image; a multiply-add counts as two.

    Args:
        node: One of `graph.nodes`.
    """
    layer = node.operation
    shape = node.outputs[0].shape
    if isinstance(layer, keras.Model):
        return sum(of_call(inner) for inner in graph.nodes(layer))
    if weights := _weights(layer):  # used once at each position; a Dense layer has one position
        return 2 * _places(shape) * weights
    if any(map(_weights, graph.parts(layer) if isinstance(layer, keras.Layer) else ())):
        return _of_parts(layer, _places(node.input_tensors[0].shape), _places(shape))
    return _places((*shape, 1))


def _of_parts(layer: keras.Layer, entering: int, leaving: int) -> int:
    """Count the operations of a composite layer, such as a transformer block, without attention.

    Strides reduce the number of positions on the way.
    """
    places, counted = max(entering, leaving), 0
    for part in graph.parts(layer):
        strides = getattr(part, "strides", 1)
        stride = math.prod(strides) if isinstance(strides, Sequence) else int(strides)
        places = max(leaving, places // stride)
        counted += 2 * places * _weights(part)
    return counted


def _weights(layer: Any) -> int:
    """Count the numbers in a layer's own kernels."""
    if isinstance(layer, keras.layers.SeparableConv2D):
        kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
    else:
        kernels = [layer.kernel] if getattr(layer, "kernel", None) is not None else []
    return sum(math.prod(kernel.shape) for kernel in kernels)


def _places(shape: Sequence[int | None]) -> int:
    """Count the positions of a tensor (batch, ..., channels)."""
    return math.prod(side or 1 for side in shape[1:-1])
