"""A Keras model as one flat TensorFlow graph whose weights are constants, for converters.

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

    Keras' own ONNX export gives the constants of EfficientNetV2 as further inputs, and
    leaves the grouped convolutions of ConvNeXt, compiled by XLA, as calls.

    Args:
        model: (B, ...) float32 -> (B, ...).
        batch_size: B; of any size if None.

    Returns:
        A function of TensorFlow with `graph`, `inputs` and `outputs`; it can be called.
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
    """What a model takes, as TensorFlow says it; a batch of any size if None."""
    import tensorflow as tf

    return tf.TensorSpec((batch_size, *model.input_shape[1:]), tf.float32, name=INPUT)
