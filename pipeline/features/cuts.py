"""Cut a network: its cut points, the split at one, and what is trainable above it.

A cut point is a layer whose output is the only tensor that passes from the layers before it to
those after it. Model -> lower and upper, with upper(lower(x)) equal to model(x) and shared weights.
Independent of data and training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import keras

from pipeline.errors import InputError
from pipeline.networks import graph

_BLOCK = re.compile(
    r"(?:[a-z]+_)*?(?:conv\d+_|stage_\d+_)?(?:block|expanded_conv)_?\d+[a-z]?(?![a-z])"
)


@dataclass(frozen=True)
class Cut:
    """A cut, resolved on a backbone.

    Attributes:
        at: The cut point where lower ends: the last one below everything trainable.
        trainable: Names of the trainable layers: all from the requested one on.
    """

    at: str
    trainable: tuple[str, ...]


@dataclass(frozen=True)
class CutPoint:
    """A layer at which a model can be cut.

    Attributes:
        name: Name of the layer.
        index: Index in Keras' list of layers, without preprocessing.
        block: Block of the network that the layer belongs to, or the layer's name.
        shape: Shape of one image's activations there.
        bytes_per_image: Their size, as float32.
        flops_below: Fraction of the forward floating-point operations up to and including the
            layer.
        parameters_below: Fraction of the parameters up to and including the layer.
    """

    name: str
    index: int
    block: str
    shape: tuple[int, ...]
    bytes_per_image: int
    flops_below: float
    parameters_below: float


def cut_points(model: keras.Model) -> list[str]:
    """List the names of the layers at which a model can be cut, from shallow to deep.

    The input is one, since everything can be above the cut; the output is not.
    """
    return [node.operation.name for node in graph.cut_nodes(model)]


def describe(model: keras.Model) -> list[CutPoint]:
    """Describe what each cut point of a model costs and leaves to train, from shallow to deep."""
    names = [layer.name for layer in _layers(model)]
    below, counted, flops, done = {}, set(), 0, 0
    for node in graph.nodes(model):
        flops += of_call(node)
        if id(node.operation) not in counted:
            counted.add(id(node.operation))
            done += getattr(node.operation, "count_params", lambda: 0)()
        below[id(node)] = (flops, done)
    points = []
    for node in graph.cut_nodes(model):
        name, shape = node.operation.name, tuple(node.outputs[0].shape[1:])
        flops_here, parameters_here = below[id(node)]
        points.append(
            CutPoint(
                name=name,
                index=names.index(name) if name in names else 0,
                block=block_of(name),
                shape=shape,
                bytes_per_image=4 * math.prod(shape),
                flops_below=flops_here / max(flops, 1),
                parameters_below=parameters_here / max(done, 1),
            )
        )
    return points


def operations_of(model: keras.Model) -> int:
    """Count the floating-point operations of a model's forward pass on one image."""
    return sum(of_call(node) for node in graph.nodes(model))


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


def block_of(name: str) -> str:
    """Return the block in a layer's name, such as `block_13` or `conv5_block2`."""
    match = _BLOCK.match(name)
    return match.group() if match else name


def block_starts(model: keras.Model, batch_norm: bool) -> list[int]:
    """Return the index of the first layer of each block that has something to train.

    A block is a run of layers with the same block in their names, or between the same cut points; a
    normalization layer without such a name belongs to the block before it.
    """
    layers, between = _layers(model), graph.segments(model)
    starts: list[int] = []
    last: object = None
    for index, layer in enumerate(layers):
        name = block_of(layer.name)
        block: object = name if name != layer.name else between[id(layer)]
        norm = isinstance(layer, (keras.layers.BatchNormalization, keras.layers.LayerNormalization))
        if _learns(layer, batch_norm) and block != last and not (norm and block != name and last):
            starts.append(index)
            last = block
    return starts


def split(model: keras.Model, at: str) -> tuple[keras.Model, keras.Model]:
    """Split a backbone at a cut point, so that upper(lower(x)) equals model(x).

    Weights are shared with `model`.

    Args:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, D).
        at: Name of a cut point, one of `cut_points(model)`.

    Returns:
        lower: (B, H, W, 3) -> (B, h, w, C).
        upper: (B, h, w, C) -> (B, D).

    Raises:
        InputError: `at` is not a cut point; the message lists the nearest ones.
    """
    for node in graph.cut_nodes(model):
        if node.operation.name == at:
            tensor = node.outputs[0]
            lower = keras.Model(model.inputs[0], tensor, name="lower")
            entry = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name="activations")
            after = {id(other) for other in graph.nodes(lower)}
            output = graph.run(model, {id(tensor): entry}, skip=after)
            return lower, keras.Model(entry, output, name="upper")
    near = get_close_matches(at, cut_points(model), n=3, cutoff=0)
    raise InputError(f"{at!r} is not a cut point of {model.name}: did you mean {_list(near)}?")


def resolve(model: keras.Model, cut: str | int | dict[str, int], batch_norm: bool = False) -> Cut:
    """Resolve a cut: the named layer and all layers after it train.

    Args:
        model: A backbone.
        cut: Name of a layer, or its index in Keras' list (0 is the input; preprocessing does not
            count), or {blocks: N} for the last N blocks.
        batch_norm: Train BatchNormalization too.

    Raises:
        InputError: The backbone has no such layer, or nothing would be left to train.
    """
    layers = _layers(model)
    names = [layer.name for layer in layers]
    if isinstance(cut, dict):
        if set(cut) != {"blocks"} or not isinstance(cut["blocks"], int):
            raise InputError(
                f"finetune.cut must be a name, an index, none or {{blocks: N}}, got {cut}"
            )
        starts, count = block_starts(model, batch_norm), cut["blocks"]
        if not 1 <= count <= len(starts):
            raise InputError(
                f"finetune.cut.blocks must be 1 to {len(starts)}, the number of blocks of this "
                f"network, got {count}"
            )
        start = starts[-count]
    else:
        start = _start(model, names, cut)
    trainable = layers[start:]
    trained = {id(layer) for layer in trainable if _learns(layer, batch_norm)}
    if not trained:
        last = max(index for index, layer in enumerate(layers) if _learns(layer, batch_norm))
        raise InputError(
            f"finetune.cut={cut} leaves nothing to train: the last layer of {model.name} with "
            f"trainable weights is {names[last]!r} (index {last}): name it or an earlier one, or "
            "set finetune.cut=none"
        )
    at, ends = None, {id(node) for node in graph.cut_nodes(model)}
    for node in graph.nodes(model):
        if id(node.operation) in trained:
            break
        if id(node) in ends:
            at = node.operation.name
    assert at is not None, "the input is a cut point and has no weights"
    return Cut(at, tuple(layer.name for layer in trainable))


def trainable_points(model: keras.Model, batch_norm: bool) -> list[str]:
    """List the cut points of the network from which there is something to train."""
    layers = _layers(model)
    last = max(index for index, layer in enumerate(layers) if _learns(layer, batch_norm))
    names = {layer.name for layer in layers[: last + 1]}
    return [name for name in cut_points(model) if name in names]


def learning(model: keras.Model, batch_norm: bool, cut: Cut | None = None) -> tuple[str, ...]:
    """List the layers that have something to train, in order: all, or those above a cut."""
    names = (layer.name for layer in _layers(model) if _learns(layer, batch_norm))
    return tuple(name for name in names if cut is None or name in cut.trainable)


def _start(model: keras.Model, names: list[str], cut: str | int) -> int:
    if isinstance(cut, int):
        if not 0 <= cut < len(names):
            raise InputError(
                f"finetune.cut={cut} is not a layer of {model.name}: it has the layers 0 to "
                f"{len(names) - 1} ({names[-1]!r})"
            )
        return cut
    if cut not in names:
        matching = [name for name in names if name.startswith(cut)]
        near = matching[:3] or get_close_matches(cut, names, n=3, cutoff=0)
        raise InputError(
            f"finetune.cut={cut} is not a layer of {model.name}: did you mean {_list(near)}? "
            "`python -m pipeline cuts` lists them"
        )
    return names.index(cut)


def freeze(model: keras.Model, trainable: tuple[str, ...], batch_norm: bool) -> None:
    """Make only the named layers trainable.

    Args:
        model: A backbone.
        trainable: Names of layers.
        batch_norm: Train BatchNormalization among them. If frozen, it also keeps its moving
            statistics, whatever `training` says.
    """
    names = set(trainable)
    for layer in model.layers:
        layer.trainable = layer.name in names
        if not batch_norm:
            for part in graph.parts(layer):
                if isinstance(part, keras.layers.BatchNormalization):
                    part.trainable = False


def _learns(layer: keras.layers.Layer, batch_norm: bool) -> bool:
    # `trainable_variables` is empty in a frozen layer, which may be trainable in the next training.
    parts = [part for part in graph.parts(layer) if part._trainable_variables]
    return any(
        batch_norm or not isinstance(part, keras.layers.BatchNormalization) for part in parts
    )


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the network's layers in Keras' order, without the preprocessing before them."""
    return [layer for layer in model.layers if layer.name != "preprocessing"]


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
