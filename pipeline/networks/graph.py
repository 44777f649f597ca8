"""A Keras model as a graph of calls. The only file that looks inside Keras' Functional.

model -> its nodes in order, the nodes where it can be cut, the same calls on other tensors. A node
has `operation`, `input_tensors`, `outputs`, `arguments`, `is_input`.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import KerasTensor

Call = Callable[..., Any]
"""Operation and its arguments -> its output."""


def replay(model: keras.Model, x: KerasTensor, call: Call = operator.call) -> KerasTensor:
    """Apply the model's layers, one by one, to another input.

    Nested models are expanded to their layers, unless a layer's name is taken.

    Args:
        model: The model.
        x: Replaces its input.
        call: Calls each operation.
    """
    taken = {node.operation.name for node in nodes(model) if not node.is_input}
    return run(model, {id(model.inputs[0]): x}, set(), _openable(model, taken), call)


def _openable(model: keras.Model, taken: set[str]) -> set[int]:
    """Find the nested models that can be expanded; adds the names of their layers to `taken`."""
    opened: set[int] = set()
    for inner in {id(node.operation): node.operation for node in nodes(model)}.values():
        one_input = len(getattr(inner, "inputs", None) or ()) == 1
        if not (isinstance(inner, keras.Model) and one_input and is_graph(inner)):
            continue
        own = {node.operation.name for node in nodes(inner) if not node.is_input}
        if not own & taken:
            taken |= own
            opened |= {id(inner)} | _openable(inner, taken)
    return opened


def nodes(model: keras.Model) -> list[Any]:
    """List the model's calls of layers and operations, inputs first."""
    functional = getattr(model, "_functional", None) or model  # a Sequential contains one
    depths = functional._nodes_by_depth
    return [node for depth in sorted(depths, reverse=True) for node in depths[depth]]


def parts(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """List a layer and all layers inside it; Keras has no public function for this."""
    return list(layer._flatten_layers())


def cut_nodes(model: keras.Model) -> Iterator[Any]:
    """Yield the nodes after which exactly one tensor, their (first) output, is still needed."""
    ordered = nodes(model)
    last_use = {
        id(tensor): place for place, node in enumerate(ordered) for tensor in node.input_tensors
    }
    open_until: dict[int, int] = {}
    for place, node in enumerate(ordered[:-1]):
        for tensor in node.outputs:
            open_until[id(tensor)] = last_use.get(id(tensor), -1)
        alive = [tensor for tensor, until in open_until.items() if until > place]
        if alive == [id(node.outputs[0])] and isinstance(node.operation, keras.layers.Layer):
            yield node


def digest(model: keras.Model) -> str:
    """Compute a digest of a model's operations, settings and connections, without its weights.

    Layers without weights, such as a Rescaling, change results too. Names are ignored: Keras
    numbers the unnamed layers of a process in the order of their creation.
    """
    return hashlib.sha256(json.dumps(_described(model), sort_keys=True).encode()).hexdigest()


def _described(model: keras.Model) -> list[Any]:
    """Describe each call of a model: operation, settings, and the earlier outputs it uses."""
    places: dict[int, int] = {}
    operations: dict[int, int] = {}  # a shared layer is called twice with the same weights
    calls: list[Any] = []
    for node in nodes(model):
        operation = node.operation
        number = operations.setdefault(id(operation), len(operations))
        arguments = keras.tree.map_structure(
            lambda part: {"output": places[id(part)]} if id(part) in places else repr(part),
            [list(node.arguments.args), dict(node.arguments.kwargs)],
        )
        for tensor in node.outputs:
            places[id(tensor)] = len(places)
        inner = isinstance(operation, keras.Model) and is_graph(operation)
        settings = _described(operation) if inner else _settings(operation)
        shapes = [[str(tensor.shape), str(tensor.dtype)] for tensor in node.outputs]
        calls.append([number, type(operation).__name__, settings, arguments, shapes])
    return calls


def is_graph(model: keras.Model) -> bool:
    """Check for a model made of calls, such as Functional and Sequential."""
    return hasattr(getattr(model, "_functional", None) or model, "_nodes_by_depth")


def _settings(operation: Any) -> Any:
    try:
        settings = operation.get_config()
    except NotImplementedError:  # a kind that cannot be saved either
        settings = {}
    return _unnamed(settings)


def _unnamed(value: Any) -> Any:
    """Convert settings to plain values, without the names that Keras assigns."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if k not in ("name", "shared_object_id")}
        return {str(key): _unnamed(inner) for key, inner in left.items()}
    if isinstance(value, (list, tuple)):
        return [_unnamed(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def segments(model: keras.Model) -> dict[int, int]:
    """Map each layer to the number of cut points before it."""
    cuts = {id(node) for node in cut_nodes(model)}
    passed, segments = 0, {}
    for node in nodes(model):
        segments[id(node.operation)] = passed
        passed += id(node) in cuts
    return segments


def run(
    model: keras.Model,
    tensors: dict[int, KerasTensor],
    skip: set[int],
    open_up: set[int] | None = None,
    call: Call = operator.call,
) -> KerasTensor:
    """Call the nodes of a model on other tensors; returns the tensor replacing its output.

    Args:
        model: The model.
        tensors: Id of one of the model's tensors -> its replacement.
        skip: Ids of nodes that are not called.
        open_up: Ids of nested models whose layers are called instead.
        call: Calls each operation.
    """
    for node in nodes(model):
        computed = all(id(tensor) in tensors for tensor in node.outputs)
        if node.is_input or computed or id(node) in skip:
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        if open_up and id(node.operation) in open_up:
            entry = {id(node.operation.inputs[0]): args[0]}
            outputs = [run(node.operation, entry, set(), open_up, call)]
        else:
            outputs = keras.tree.flatten(call(node.operation, *args, **kwargs))
        tensors |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
    return tensors[id(model.outputs[0])]
