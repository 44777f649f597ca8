"""Translate a model config from Keras 2 to Keras 3.

nested dicts -> nested dicts. Weights need no translation: both number them in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]

_MODELS = {"Functional", "Model", "Sequential"}
_REMOVED = (
    (r"DepthwiseConv2D|SeparableConv[12]D|Conv[23]DTranspose", {"groups"}),
    (r"SeparableConv[12]D", {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}),
    (r"Random\w+", {"rng_type"}),
    (r"SpatialDropout[123]D", {"trainable", "noise_shape"}),
    (r"LSTM|GRU|SimpleRNN|RNN|ConvLSTM2D", {"time_major"}),
    (r"MultiHeadAttention", {"query_shape", "key_shape", "value_shape", "softmax_robust_masking"}),
)
"""Layer types (full-match patterns) -> settings that Keras 3 no longer has."""
_ARITHMETIC: dict[str, Callable[[float], tuple[float, float]]] = {
    "math.truediv": lambda number: (1 / number, 0.0),
    "math.multiply": lambda number: (number, 0.0),
    "math.subtract": lambda number: (1.0, -number),
    "math.add": lambda number: (1.0, number),
    "__operators__.add": lambda number: (1.0, number),
}
"""Operations with a number -> scale and offset of the equivalent layer."""


class Untranslatable(ValueError):
    """Something in the config has no counterpart in Keras 3; the message says what."""


def translated(root: Json) -> Json:
    """Translate the config of a model.

    Args:
        root: As in the file: `class_name` and `config` of a Functional or Sequential.

    Raises:
        Untranslatable: It contains an operation that is not a layer.
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
            done[ends] = nodes[0] if alone else nodes  # or a nested model would return a list
    return done


def _layer(layer: Json, inside: set[str]) -> Json:
    """Remove what only Keras 2 reads: Keras 3 finds the class by name, as for old files."""
    kind = layer["class_name"]
    if layer.get("module", "") is None:
        kind = layer.get("registered_name") or kind
    nodes = _nodes(layer.get("inbound_nodes", []), inside)
    if kind in _MODELS:
        config = _model(layer["config"])
    else:
        removed = {n for pattern, names in _REMOVED if re.fullmatch(pattern, kind) for n in names}
        items = layer["config"].items()
        config = {key: _value(value) for key, value in items if key not in removed}
        if "name" in config:
            config["name"] = _name(config["name"])
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        kind, config, nodes = _arithmetic(config, nodes)
    done = {"class_name": kind, "config": config}
    if "inbound_nodes" in layer:
        done |= {"name": config["name"], "inbound_nodes": nodes}
    return done


def _value(value: Any) -> Any:
    """Translate a layer's setting, which may be a layer itself, or a dtype policy."""
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not (isinstance(value, dict) and "class_name" in value and "config" in value):
        return value
    kind = value["class_name"]
    if kind == "Policy":
        name = {"name": value["config"]["name"]}
        keras_class = {"module": "keras", "registered_name": None}
        return {**keras_class, "class_name": "DTypePolicy", "config": name}
    if "layers" in (value.get("module") or "") or kind in _MODELS or "build_config" in value:
        return _layer(value, set())
    return value


def _arithmetic(config: Json, nodes: Any) -> tuple[str, Json, Any]:
    """Translate an operation with a number, which Keras 2 wrote for code such as `x / 127.5`.

    Raises:
        Untranslatable: It is another operation.
    """
    name = config.get("function", "")
    calls = [call for node in nodes for call in (node if isinstance(node[0], list) else [node])]
    numbers = [call[3].get("y") for call in calls if len(call) > 3]
    to_scale = _ARITHMETIC.get(name)
    if to_scale is None or len(numbers) != 1 or not isinstance(numbers[0], int | float):
        raise Untranslatable(f"the operation tf.{name or 'slice'}, which is not a layer")
    scale, offset = to_scale(float(numbers[0]))
    layer = {"name": config["name"], "scale": scale, "offset": offset}
    return "Rescaling", layer, [[[*calls[0][:3], {}]]]


def _nodes(nodes: Any, inside: set[str]) -> Any:
    """Translate references to calls of layers; those of nested models start at 0.

    Keras 2 counted a nested model's own creation as a call.
    """
    if not isinstance(nodes, list):
        return nodes
    if len(nodes) > 2 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
        first = max(0, nodes[1] - 1) if nodes[0] in inside else nodes[1]
        return [_name(nodes[0]), first, *nodes[2:]]
    return [_nodes(item, inside) for item in nodes]


def _name(name: str) -> str:
    """Replace slashes, which Keras 3 does not allow in a layer's name."""
    return name.replace("/", "_")
