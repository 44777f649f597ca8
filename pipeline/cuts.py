"""Where a network can be cut: its cut points, the split at one, and what is trainable above it.

A cut point is a layer whose output is the only tensor that crosses from what
comes before it to what comes after. Model -> lower and upper, with
upper(lower(x)) equal to model(x) and the weights shared. Knows nothing of data
or training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import keras
from keras import KerasTensor

from pipeline.errors import InputError


@dataclass(frozen=True)
class Cut:
    """A cut that was asked for, resolved on a backbone.

    Attributes:
        at: The cut point where lower ends: the last one below everything trainable.
        trainable: Names of the layers that train: all from the asked one on.
    """

    at: str
    trainable: tuple[str, ...]


def cut_points(model: keras.Model) -> list[str]:
    """Names of the layers at which a model can be cut, shallow to deep.

    The input is one, since everything can be above the cut; the output is not.
    """
    return [node.operation.name for node in _cut_nodes(model)]


def split(model: keras.Model, at: str) -> tuple[keras.Model, keras.Model]:
    """Split a backbone at a cut point, so that upper(lower(x)) equals model(x).

    Weights are shared with `model`, not copied.

    Args:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, D).
        at: Name of a cut point, one of `cut_points(model)`.

    Returns:
        lower: (B, H, W, 3) -> (B, h, w, C).
        upper: (B, h, w, C) -> (B, D).

    Raises:
        InputError: `at` is no cut point; the message lists those nearest to it.
    """
    for node in _cut_nodes(model):
        if node.operation.name == at:
            tensor = node.outputs[0]
            lower = keras.Model(model.inputs[0], tensor, name="lower")
            entry = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name="activations")
            after = {id(other) for other in _nodes(lower)}
            output = _run(model, {id(tensor): entry}, skip=after)
            return lower, keras.Model(entry, output, name="upper")
    near = get_close_matches(at, cut_points(model), n=3, cutoff=0)
    raise InputError(f"a split must be at a cut point, got {at!r}: the nearest are {_list(near)}")


def resolve(model: keras.Model, cut: str | int, batch_norm: bool = False) -> Cut:
    """Find what a cut asks for: that layer and all layers after it train.

    Args:
        model: A backbone.
        cut: Name of a layer, or its index as Keras counts them in the network
            (0 is the input; the layers of the preprocessing do not count).
        batch_norm: Whether BatchNormalization trains too.

    Raises:
        InputError: The backbone has no such layer, or nothing would be left to train.
    """
    layers = [layer for layer in model.layers if layer.name != "preprocessing"]
    names = [layer.name for layer in layers]
    start = _start(model, names, cut)
    trainable = layers[start:]
    trained = {id(layer) for layer in trainable if _learns(layer, batch_norm)}
    if not trained:
        last = max(index for index, layer in enumerate(layers) if _learns(layer, batch_norm))
        raise InputError(
            f"finetune.cut={cut} leaves nothing to train: {model.name} has {len(layers)} layers "
            "and none from there on has weights that train; the last is "
            f"{names[last]!r} (index {last}); name it or an earlier one, or set finetune.cut=none"
        )
    at = None
    for node in _cut_nodes(model):
        below = _below(model, node)
        if any(id(operation) in trained for operation in below):
            break
        at = node.operation.name
    assert at is not None, "the input is a cut point and has no weights"
    return Cut(at, tuple(layer.name for layer in trainable))


def _start(model: keras.Model, names: list[str], cut: str | int) -> int:
    if isinstance(cut, int):
        if not 0 <= cut < len(names):
            raise InputError(
                f"finetune.cut must be a layer of {model.name}, got index {cut}: it has the "
                f"layers 0 to {len(names) - 1}, the last is {names[-1]!r}"
            )
        return cut
    if cut not in names:
        begins = [name for name in names if name.startswith(cut)]
        near = begins[:3] or get_close_matches(cut, names, n=3, cutoff=0)
        raise InputError(
            f"finetune.cut must name a layer of {model.name}, or give its index, or be none, got "
            f"{cut!r}: the nearest are {_list(near)}"
        )
    return names.index(cut)


def freeze(model: keras.Model, trainable: tuple[str, ...], batch_norm: bool) -> None:
    """Let the named layers train and no other.

    Args:
        model: A backbone.
        trainable: Names of layers.
        batch_norm: Whether BatchNormalization among them trains too. Frozen, it also
            keeps its moving statistics, whatever `training` says.
    """
    named = set(trainable)
    for layer in model.layers:
        layer.trainable = layer.name in named
        if not batch_norm:
            for part in layer._flatten_layers():
                if isinstance(part, keras.layers.BatchNormalization):
                    part.trainable = False


def _learns(layer: keras.layers.Layer, batch_norm: bool) -> bool:
    parts = [part for part in layer._flatten_layers() if part._trainable_variables]
    return any(
        batch_norm or not isinstance(part, keras.layers.BatchNormalization) for part in parts
    )


def replay(model: keras.Model, x: KerasTensor) -> KerasTensor:
    """The model's layers, one by one, on another input: no model inside a model."""
    return _run(model, {id(model.inputs[0]): x}, skip=set())


def _nodes(model: keras.Model) -> list[Any]:
    """The model's calls of layers and operations, inputs first."""
    functional = getattr(model, "_functional", None) or model  # a Sequential holds one
    depths = functional._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def _cut_nodes(model: keras.Model) -> Iterator[Any]:
    """The nodes after which exactly one tensor, their output, is still needed."""
    nodes = _nodes(model)
    last_use = {
        id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors
    }
    open_until: dict[int, int] = {}
    for place, node in enumerate(nodes[:-1]):
        for tensor in node.outputs:
            open_until[id(tensor)] = last_use.get(id(tensor), -1)
        alive = [tensor for tensor, until in open_until.items() if until > place]
        own = [id(tensor) for tensor in node.outputs]
        if alive == own and isinstance(node.operation, keras.layers.Layer):
            yield node


def _below(model: keras.Model, cut: Any) -> list[Any]:
    """The operations up to and including a cut node's."""
    operations = []
    for node in _nodes(model):
        operations.append(node.operation)
        if node is cut:
            break
    return operations


def _run(model: keras.Model, tensors: dict[int, KerasTensor], skip: set[int]) -> KerasTensor:
    """Call the nodes of a model on other tensors; returns what becomes of its output."""
    for node in _nodes(model):
        known = all(id(tensor) in tensors for tensor in node.outputs)
        if node.is_input or known or id(node) in skip:
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        tensors |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
    return tensors[id(model.outputs[0])]


def _list(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names)
