"""Keras' own training step and forward pass over batches, without `fit` and `predict` around them.

Those take up to 0.1 s an epoch beside the steps (benchmarks/RESULTS.md, "Training loop"),
which on kept activations is a large part of it, and leave what a generator reads from in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training import replicas

Batch = tuple[Any, ...]


def train(model: keras.Model, batches: Iterable[Batch], rates: Iterable[float]) -> dict[str, float]:
    """Train on every batch once.

    Args:
        model: (B, ...) -> (B, K), compiled; what is traced is kept with it.
        batches: (B, ...) inputs, (B, K) one-hot labels and maybe (B,) weights; of a model that
            mixes, as `mixing.mixed` yields them.
        rates: The learning rate of each step.

    Returns:
        Loss and metrics, means over the epoch.
    """
    model.reset_metrics()
    present = None
    for batch, rate in zip(batches, rates, strict=True):
        if not _takes(model.train_function, batch):
            model.train_function = _traced(replicas.on_all(model.train_step), batch)
        if rate != present:
            model.optimizer.learning_rate.assign(rate)
            present = rate
        model.train_function(*batch)
    return _means(model)


def probabilities(model: keras.Model, batches: Iterable[Batch]) -> NDArray[np.float32]:
    """What a model says of every batch's inputs, in order: (N, K); see `train`."""
    outputs = []
    for inputs, *_ in batches:
        if not hasattr(model, "probabilities_function"):  # kept with the model, like the step
            model.probabilities_function = _traced(lambda x: model(x[0], training=False), (inputs,))
        outputs.append(model.probabilities_function(inputs).numpy())
    return np.concatenate(outputs)


def _takes(step: Any, batch: Batch) -> bool:
    return step is not None and len(tf.nest.flatten(step.input_signature)) == len(
        tf.nest.flatten(batch)
    )


def _traced(step: Callable[[Batch], Any], batch: Batch) -> Any:
    """A step that is traced once for batches of all sizes."""
    signature = tf.nest.map_structure(
        lambda part: tf.TensorSpec((None, *part.shape[1:]) if part.ndim else (), part.dtype), batch
    )
    return tf.function(lambda *parts: step(parts), input_signature=signature, autograph=False)


def _means(model: keras.Model) -> dict[str, float]:
    return {name: float(value) for name, value in model.get_metrics_result().items()}
