"""Repair layers of other libraries that do not report their output shape or their config.

layer or model -> the same, repaired: can be cut, saved and loaded. Names no library.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor


def shaped(layer: keras.Layer, x: KerasTensor, **kwargs: Any) -> KerasTensor:
    """Call a layer of another library that reports no output shape, or a wrong one."""
    import keras

    shape = layer(keras.ops.zeros((1, *x.shape[1:])), **kwargs).shape
    layer.compute_output_shape = lambda *_, **__: (None, *shape[1:])
    return layer(x, **kwargs)


def savable(model: keras.Model, preset: str) -> keras.Model:
    """Return the model with layers that report their config.

    KerasHub saves whole networks, so it goes unnoticed if a part's own config has extra items,
    lacks some, or names a class.

    Args:
        model: Model built from its layers.
        preset: Name of the preset, for messages.

    Raises:
        InputError: Loading would give another network.
    """
    import keras
    import numpy as np

    from pipeline.networks import runtime

    repaired = [layer for layer in model.layers if not _is_savable(layer)]
    for layer in repaired:
        layer.get_config = partial(_config, layer)
        # Without it, Keras builds the layer when it is called, including what is inside.
        layer.get_build_config = lambda: None
    if repaired:
        with runtime.quiet_building():
            again = keras.Model.from_config(model.get_config())
        again.set_weights(model.get_weights())
        noise = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape[1:]))
        sample = noise.astype(np.float32)
        if not np.array_equal(model(sample, training=False), again(sample, training=False)):
            kinds = ", ".join(sorted({type(layer).__name__ for layer in repaired}))
            raise InputError(
                f"backbone.preset={preset} cannot be saved: KerasHub does not report the config of "
                f"its layers {kinds}; choose another network"
            )
    return model


def _is_savable(layer: keras.Layer) -> bool:
    try:
        type(layer).from_config(layer.get_config())
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _config(layer: keras.Layer) -> dict[str, Any]:
    """Return the arguments of a layer: as Keras recorded them, else from its attributes."""
    import inspect

    import keras

    recorded = getattr(layer, "_auto_config", None)
    parameters = inspect.signature(type(layer).__init__).parameters
    own = {name: getattr(layer, name) for name in parameters if hasattr(layer, name)}
    if recorded is not None:
        own = {name: value for name, value in recorded.config.items() if name in parameters}
    reads_classes = type(layer).from_config.__func__ is not keras.Layer.from_config.__func__
    for name, value in list(own.items()):
        if inspect.isclass(value) and reads_classes:
            function = {"module": "keras.layers", "registered_name": "function"}
            own[name] = {**function, "class_name": "function", "config": value.__name__}
        elif callable(value):  # a part, or a function that nobody changes
            del own[name]
    return {**own, **keras.Layer.get_config(layer)}
