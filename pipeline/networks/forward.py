"""Run a network forward over many rows, in batches of one shape.

Every batch has the same shape, the last one padded: the function is traced once,
and a picture's result does not depend on which or how many others come with it.
"""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

Floats = NDArray[np.float32]


class Forward:
    """A network's forward pass in inference mode.

    Args:
        model: (B, ...) -> (B, ...).
        batch_size: B, always.
    """

    def __init__(self, model: keras.Model, batch_size: int) -> None:
        self._model = model
        self._batch_size = batch_size
        self._call = tf.function(lambda rows: model(rows, training=False), reduce_retracing=True)

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
