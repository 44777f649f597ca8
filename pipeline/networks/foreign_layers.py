"""Layers of other libraries that do not say what they give, or what they are made of.

layer or model -> the same, mended: able to be cut, saved and read back. Needs no name of a library.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor


def shaped(layer: keras.Layer, x: KerasTensor, **kwargs: Any) -> KerasTensor:
    """Call a layer that does not tell the shape of what it gives, or a wrong one.

    Args:
        layer: Of a foreign library.
        x: What it takes.
        kwargs: Further arguments of its call.
    """
    import keras

    found = layer(keras.ops.zeros((1, *x.shape[1:])), **kwargs).shape
    layer.compute_output_shape = lambda *_, **__: (None, *found[1:])
    return layer(x, **kwargs)


def savable(model: keras.Model, preset: str) -> keras.Model:
    """The model, its layers able to say what they are made of.

    KerasHub saves whole networks, so that nobody notices where a part's own config holds
    further things, lacks some, or names a class.

    Args:
        model: Made of its layers.
        preset: How the user calls it.

    Raises:
        InputError: What would be read back is another network.
    """
    import keras
    import numpy as np

    from pipeline.networks import runtime

    mended = [layer for layer in model.layers if not _is_savable(layer)]
    for layer in mended:
        layer.get_config = partial(_config, layer)
        # Without it Keras builds the layer when it is called, with what is inside.
        layer.get_build_config = lambda: None
    if mended:
        with runtime.quiet_building():
            again = keras.Model.from_config(model.get_config())
        again.set_weights(model.get_weights())
        noise = np.random.default_rng(0).integers(0, 256, (1, *model.input_shape[1:]))
        shown = noise.astype(np.float32)
        if not np.array_equal(model(shown, training=False), again(shown, training=False)):
            kinds = ", ".join(sorted({type(layer).__name__ for layer in mended}))
            raise InputError(
                f"backbone.preset={preset} cannot be saved: KerasHub does not say what its layers "
                f"{kinds} are made of; choose another network"
            )
    return model


def _is_savable(layer: keras.Layer) -> bool:
    try:
        type(layer).from_config(layer.get_config())
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return True


def _config(layer: keras.Layer) -> dict[str, Any]:
    """What a layer was made with: as Keras took it down, else as its attributes tell."""
    import inspect

    import keras

    taken_down = getattr(layer, "_auto_config", None)
    asked = inspect.signature(type(layer).__init__).parameters
    own = {name: getattr(layer, name) for name in asked if hasattr(layer, name)}
    if taken_down is not None:
        own = {name: value for name, value in taken_down.config.items() if name in asked}
    reads_classes = type(layer).from_config.__func__ is not keras.Layer.from_config.__func__
    for name, value in list(own.items()):
        if inspect.isclass(value) and reads_classes:
            named = {"module": "keras.layers", "registered_name": "function"}
            own[name] = {**named, "class_name": "function", "config": value.__name__}
        elif callable(value):  # a part, or a function that nobody changes
            del own[name]
    return {**own, **keras.Layer.get_config(layer)}
