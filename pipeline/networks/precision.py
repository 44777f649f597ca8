"""A network in float32, whatever it was trained in.

model with mixed or half precision -> the same weights and layers, computing in float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

_PLAIN = "float32"


def in_float32(model: keras.Model, safe_mode: bool) -> keras.Model:
    """The model itself if it computes in float32 already.

    Args:
        model: Functional or Sequential.
        safe_mode: Whether code in its layers is refused.
    """
    import keras

    if all(layer.compute_dtype == _PLAIN for layer in model.layers):
        return model
    config = _plain(keras.saving.serialize_keras_object(model))
    rebuilt: keras.Model = keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
    rebuilt.set_weights([weight.astype(_PLAIN) for weight in model.get_weights()])
    return rebuilt


def _plain(value: Any) -> Any:
    """A config whose every precision is float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {"name": _PLAIN}}
        kept = {key: _plain(inner) for key, inner in value.items()}
        if isinstance(kept.get("dtype"), str) and "float" in kept["dtype"]:
            kept["dtype"] = _PLAIN
        return kept
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return value
