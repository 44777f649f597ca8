"""The config of a model in the words of Keras 2, in those of Keras 3.

nested dicts -> nested dicts. Weights need no translation: both number them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

_MODELS = {"Functional", "Model", "Sequential"}
_FORGOTTEN = (
    (r"DepthwiseConv2D|SeparableConv[12]D|Conv[23]DTranspose", {"groups"}),
    (
        r"SeparableConv[12]D",
        {"kernel_initializer", "kernel_regularizer", "kernel_constraint"},
    ),
    (r"Random\w+", {"rng_type"}),
    (r"SpatialDropout[123]D", {"trainable", "noise_shape"}),
    (r"LSTM|GRU|SimpleRNN|RNN|ConvLSTM2D", {"time_major"}),
    (
        r"MultiHeadAttention",
        {"query_shape", "key_shape", "value_shape", "softmax_robust_masking"},
    ),
)
"""Kinds of layers -> settings that Keras 3 has no more; a pattern fits the whole name."""
_ARITHMETIC: dict[str, Callable[[float], tuple[float, float]]] = {
    "math.truediv": lambda number: (1 / number, 0.0),
    "math.multiply": lambda number: (number, 0.0),
    "math.subtract": lambda number: (1.0, -number),
    "math.add": lambda number: (1.0, number),
    "__operators__.add": lambda number: (1.0, number),
}
"""Operations with a number -> scale and offset of the layer that does the same."""


class Untranslatable(ValueError):
    """Something in the config has no like in Keras 3; the message says what."""


def translated(root: Json) -> Json:
    """Translate the config of a model.

    Args:
        root: As the file has it: `class_name` and `config` of a Functional or Sequential.

    Raises:
        Untranslatable: It holds an operation that is no layer.
    """
    kind = "Sequential" if root.get("class_name") == "Sequential" else "Functional"
    module = "keras" if kind == "Sequential" else "keras.src.models.functional"
    registered = None if kind == "Sequential" else kind
    return {
        "module": module,
        "class_name": kind,
        "registered_name": registered,
        "config": _model(root["config"]),
    }


def _model(config: Json) -> Json:
    layers = config["layers"]
    inside = {layer["config"]["name"] for layer in layers if layer["class_name"] in _MODELS}
    done = {**config, "name": _name(config["name"])}
    done["layers"] = [_layer(layer, inside) for layer in layers]
    for ends in ("input_layers", "output_layers"):
        if ends in config:
            nodes = _nodes(config[ends], inside)
            alone = len(nodes) == 1 and isinstance(nodes[0], list)
            done[ends] = nodes[0] if alone else nodes  # or a model inside would give a list
    return done


def _layer(layer: Json, inside: set[str]) -> Json:
    """One without what only Keras 2 reads: Keras 3 finds its class by name, as for old files."""
    kind = layer["class_name"]
    if layer.get("module", "") is None:
        kind = layer.get("registered_name") or kind
    nodes = _nodes(layer.get("inbound_nodes", []), inside)
    if kind in _MODELS:
        config = _model(layer["config"])
    else:
        config = {key: _value(value) for key, value in layer["config"].items()}
        config = {key: config[key] for key in config.keys() - _forgotten(kind)}
        if "name" in config:
            config["name"] = _name(config["name"])
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        kind, config, nodes = _arithmetic(config, nodes)
    done = {"class_name": kind, "config": config}
    if "inbound_nodes" in layer:
        done |= {"name": config["name"], "inbound_nodes": nodes}
    return done


def _forgotten(kind: str) -> set[str]:
    found = [names for pattern, names in _FORGOTTEN if re.fullmatch(pattern, kind)]
    return set[str]().union(*found)


def _value(value: Any) -> Any:
    """A layer's setting, which may be a layer itself, or how it computes."""
    if isinstance(value, list):
        return [_value(one) for one in value]
    if not (isinstance(value, dict) and "class_name" in value and "config" in value):
        return value
    kind = value["class_name"]
    if kind == "Policy":
        name = {"name": value["config"]["name"]}
        known = {"module": "keras", "registered_name": None}
        return {**known, "class_name": "DTypePolicy", "config": name}
    if "layers" in (value.get("module") or "") or kind in _MODELS or "build_config" in value:
        return _layer(value, set())
    return value


def _arithmetic(config: Json, nodes: Any) -> tuple[str, Json, Any]:
    """An operation with a number, which Keras 2 wrote for code such as `x / 127.5`.

    Raises:
        Untranslatable: It is another operation.
    """
    name = config.get("function", "")
    calls = [call for node in nodes for call in (node if isinstance(node[0], list) else [node])]
    numbers = [call[3].get("y") for call in calls if len(call) > 3]
    known = _ARITHMETIC.get(name)
    if known is None or len(numbers) != 1 or not isinstance(numbers[0], int | float):
        raise Untranslatable(f"the operation tf.{name or 'slice'}, which is no layer")
    scale, offset = known(float(numbers[0]))
    layer = {"name": config["name"], "scale": scale, "offset": offset}
    return "Rescaling", layer, [[[*calls[0][:3], {}]]]


def _nodes(nodes: Any, inside: set[str]) -> Any:
    """References to calls of layers; those of models inside count from 0.

    Keras 2 counted a model's own making as a call.
    """
    if not isinstance(nodes, list):
        return nodes
    if len(nodes) > 2 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
        first = max(0, nodes[1] - 1) if nodes[0] in inside else nodes[1]
        return [_name(nodes[0]), first, *nodes[2:]]
    return [_nodes(one, inside) for one in nodes]


def _name(name: str) -> str:
    """Keras 3 allows no slash in a layer's name."""
    return name.replace("/", "_")
