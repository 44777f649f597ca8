"""What a model is fitted to or judged on, and its way into TensorFlow batch by batch.

rows of arrays + labels -> tf.data batches. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """What a model is fitted to or judged on.

    Attributes:
        inputs: (M, ...) array, memory-mapped or not, or another object with a shape that
            is indexed by rows. What has a `begin` is told the number of each epoch.
        rows: (N,) which of the inputs.
        labels: (N,) class indices.
    """

    inputs: Any
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]

    def begin(self, epoch: int) -> None:
        """Let the inputs choose what they are in an epoch, counted from 0."""
        if hasattr(self.inputs, "begin"):
            self.inputs.begin(epoch)


@contextmanager
def batches(
    examples: Examples,
    order: NDArray[np.int64],
    classes: int,
    batch_size: int,
    weights: NDArray[np.float32] | None,
) -> Iterator[tf.data.Dataset]:
    """Lend examples to an input pipeline.

    Args:
        examples: Read from inside the block only.
        order: (N,) places in `examples.rows`, read anew at each iteration.
        classes: K.
        batch_size: B; the last batch is smaller.
        weights: (K,) of the classes, or None.

    Yields:
        Batches of (B, ...) inputs, (B, K) one-hot labels and, where there are weights, (B,).
    """
    one_hot = np.eye(classes, dtype=np.float32)
    # TensorFlow never lets go of a generator: what it reads from must not stay with it.
    lent = [examples]

    def generated() -> Any:
        (source,) = lent
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs = np.asarray(source.inputs[source.rows[chosen]], dtype=np.float32)
            labels = source.labels[chosen]
            batch = (inputs, one_hot[labels])
            yield batch if weights is None else (*batch, weights[labels])

    signature: tuple[tf.TensorSpec, ...] = (
        tf.TensorSpec((None, *examples.inputs.shape[1:]), tf.float32),
        tf.TensorSpec((None, classes), tf.float32),
    )
    if weights is not None:
        signature = (*signature, tf.TensorSpec((None,), tf.float32))
    dataset = tf.data.Dataset.from_generator(generated, output_signature=signature)
    steps = -(-len(order) // batch_size)
    # There is nothing to tune, and the end of an epoch would wait for the tuner's next turn:
    # it sleeps twice as long each time, so up to the epoch's length again.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)
    try:
        yield dataset.with_options(options)
    finally:
        lent.clear()
