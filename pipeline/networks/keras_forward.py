"""Run Keras forward in batches of one shape.

Every batch has the same shape, the last one padded: the function is traced once, and an image's
result does not depend on the other images of its batch.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import Dense
from numpy.typing import NDArray

from pipeline.networks import graph
from pipeline.networks.forward import Floats, Forward


def images_apart(model: keras.Model) -> keras.Model:
    """Rewire a model so that each dense layer multiplies one image at a time.

    On some processors, a matrix product over a whole batch sums its last rows in another order than
    the others (oneDNN on AVX2: the rows beyond a multiple of 6).

    Args:
        model: (B, ...) -> (B, ...), whose layers are shared.
    """
    if not graph.is_graph(model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        return model
    return keras.Model(model.inputs, graph.replay(model, model.inputs[0], _apart))


def _apart(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return _ImageDense(operation)(*args) if type(operation) is Dense else operation(*args, **kwargs)


class _ImageDense(keras.layers.Layer):
    """A dense layer: (B, ..., D) -> (B, ..., K), by a separate matrix product for each image."""

    def __init__(self, dense: Dense) -> None:
        super().__init__(name=dense.name, trainable=dense.trainable, dtype=dense.dtype_policy)
        self.dense = dense

    def call(self, x: Any) -> Any:
        """(B, ..., D) -> (B, ..., K)."""
        shape = tf.shape(x)
        rows = tf.reshape(x, [shape[0], -1, x.shape[-1]])
        # A batch of products: `keras.ops.matmul` would merge them into one.
        outputs = tf.reshape(
            tf.matmul(rows, self.dense.kernel[None]), tf.concat([shape[:-1], [self.dense.units]], 0)
        )
        if self.dense.use_bias:
            outputs += self.dense.bias
        return outputs if self.dense.activation is None else self.dense.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, ..., D) -> (B, ..., K)."""
        return (*input_shape[:-1], self.dense.units)


class KerasForward(Forward):
    """Keras' own forward pass.

    Args:
        model: (B, ...) -> (B, ...).
        batch_size: B, always.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        self.rows_at_once = batch_size
        self.output_shape = tuple(model.output_shape[1:])
        apart = images_apart(model)
        self._call = tf.function(lambda rows: apart(rows, training=False), reduce_retracing=True)

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """Return the outputs of at most B rows."""
        short = self.rows_at_once - len(batch)
        rows = np.asarray(batch, dtype=np.float32)
        if short:
            rows = np.concatenate([rows, np.zeros((short, *rows.shape[1:]), np.float32)])
        outputs: Floats = self._call(tf.constant(rows)).numpy()
        return outputs[: len(batch)]
