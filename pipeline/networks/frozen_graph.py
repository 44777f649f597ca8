"""Freeze a Keras model to one flat TensorFlow graph with constant weights, for converters.

model -> graph. Functions inside the network (a `Lambda`, a compiled convolution) become part of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

INPUT = "images"
"""Name of the graph's input."""


def freeze(model: keras.Model, batch_size: int | None = None) -> Any:
    """Trace a model once, in inference mode.

    Keras' own ONNX export turns the constants of EfficientNetV2 into additional inputs, and leaves
    the grouped convolutions of ConvNeXt, compiled by XLA, as calls.

    Args:
        model: (B, ...) float32 -> (B, ...).
        batch_size: B; any if None.

    Returns:
        A TensorFlow function with `graph`, `inputs` and `outputs`; it can be called.
    """
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    tf.config.run_functions_eagerly(True)  # functions in the network become part of the graph
    try:
        traced = tf.compat.v1.wrap_function(
            lambda images: model(images, training=False), [signature(model, batch_size)]
        )
    finally:
        tf.config.run_functions_eagerly(False)
    return convert_to_constants.convert_variables_to_constants_v2(traced)


def signature(model: keras.Model, batch_size: int | None = None) -> Any:
    """Return the TensorFlow signature of a model's input; any batch size if None."""
    import tensorflow as tf

    return tf.TensorSpec((batch_size, *model.input_shape[1:]), tf.float32, name=INPUT)
