"""Run a network forward over many rows, in batches of one shape.

Every batch has the same shape, the last one padded: the function is traced once,
and a picture's result does not depend on which or how many others come with it.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import Dense
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.networks import graph

Floats = NDArray[np.float32]


def pictures_apart(model: keras.Model) -> keras.Model:
    """The same layers, wired so that each dense layer multiplies one picture at a time.

    A matrix product over a whole batch sums in another order for its last rows than for the
    others on some processors (oneDNN on AVX2: the rows beyond a multiple of 6).

    Args:
        model: (B, ...) -> (B, ...), whose layers are shared.
    """
    if not graph.is_graph(model) or len(model.inputs) != 1 or len(model.outputs) != 1:
        return model
    return keras.Model(model.inputs, graph.replay(model, model.inputs[0], _apart))


def _apart(operation: Any, *args: Any, **kwargs: Any) -> Any:
    return (
        _PictureDense(operation)(*args) if type(operation) is Dense else operation(*args, **kwargs)
    )


class _PictureDense(keras.layers.Layer):
    """A dense layer's result: (B, ..., D) -> (B, ..., K), by a matrix product for each picture."""

    def __init__(self, dense: Dense) -> None:
        super().__init__(name=dense.name, trainable=dense.trainable, dtype=dense.dtype_policy)
        self.dense = dense

    def call(self, x: Any) -> Any:
        """(B, ..., D) -> (B, ..., K)."""
        shape = tf.shape(x)
        rows = tf.reshape(x, [shape[0], -1, x.shape[-1]])
        # A batch of products, not one product: `keras.ops.matmul` would join them.
        outputs = tf.reshape(
            tf.matmul(rows, self.dense.kernel[None]),
            tf.concat([shape[:-1], [self.dense.units]], 0),
        )
        if self.dense.use_bias:
            outputs += self.dense.bias
        return outputs if self.dense.activation is None else self.dense.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(B, ..., D) -> (B, ..., K)."""
        return (*input_shape[:-1], self.dense.units)


class Forward:
    """A network's forward pass in inference mode.

    Args:
        model: (B, ...) -> (B, ...).
        batch_size: B, always.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        apart = pictures_apart(model)
        self._call = tf.function(lambda rows: apart(rows, training=False), reduce_retracing=True)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(self._model.output_shape[1:])

    def batches(
        self, rows: Any, indices: NDArray[np.int64] | None = None, desc: str = ""
    ) -> Iterator[Floats]:
        """Yield the outputs batch by batch, with a progress bar named `desc`.

        Args:
            rows: (N, ...) array, memory-mapped or not.
            indices: Which rows, in which order; all of them if None.
            desc: Name of the progress bar; no bar if empty.
        """
        count = len(rows) if indices is None else len(indices)
        with tqdm(total=count, desc=desc, unit="picture", disable=None if desc else True) as bar:
            for start in range(0, count, self._batch_size):
                chosen = slice(start, start + self._batch_size)
                batch = np.asarray(rows[chosen] if indices is None else rows[indices[chosen]])
                yield self(batch)
                bar.update(len(batch))

    def all(self, rows: Any, indices: NDArray[np.int64] | None = None, desc: str = "") -> Floats:
        """The outputs as one array: (N, ...)."""
        done = list(self.batches(rows, indices, desc))
        return np.concatenate(done) if done else np.zeros((0, *self.output_shape), np.float32)

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """The outputs of at most B rows."""
        short = self._batch_size - len(batch)
        rows = np.asarray(batch, dtype=np.float32)
        if short:
            rows = np.concatenate([rows, np.zeros((short, *rows.shape[1:]), np.float32)])
        outputs: Floats = self._call(tf.constant(rows)).numpy()
        return outputs[: len(batch)]
