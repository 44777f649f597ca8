"""Keras' own training and test step over batches, without `fit` and `evaluate` around them.

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

Batch = tuple[NDArray[np.float32], ...]


def train(model: keras.Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Train on every batch once.

    Args:
        model: (B, ...) -> (B, K), compiled; what is traced is kept with it.
        batches: (B, ...) inputs, (B, K) one-hot labels and maybe (B,) weights.

    Returns:
        Loss and metrics, means over the epoch.
    """
    model.reset_metrics()
    for batch in batches:
        if not _takes(model.train_function, batch):
            model.train_function = _traced(model.train_step, batch)
        model.train_function(*batch)
    return _means(model)


def evaluate(model: keras.Model, batches: Iterable[Batch]) -> dict[str, float]:
    """Loss and metrics of a compiled model, see `train`; named val_loss and so on."""
    model.reset_metrics()
    for batch in batches:
        if not _takes(model.test_function, batch):
            model.test_function = _traced(model.test_step, batch)
        model.test_function(*batch)
    return {f"val_{name}": value for name, value in _means(model).items()}


def _takes(step: Any, batch: Batch) -> bool:
    return step is not None and len(step.input_signature) == len(batch)


def _traced(step: Callable[[Batch], Any], batch: Batch) -> Any:
    """A step that is traced once for batches of all sizes."""
    signature = [tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batch]
    return tf.function(lambda *parts: step(parts), input_signature=signature, autograph=False)


def _means(model: keras.Model) -> dict[str, float]:
    return {name: float(value) for name, value in model.get_metrics_result().items()}
