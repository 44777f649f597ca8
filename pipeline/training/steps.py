"""Keras' own training step and forward pass over batches, without `fit` and `predict`.

These take up to 0.1 s per epoch in addition to the steps (benchmarks/RESULTS.md, "Training loop"),
a large part of an epoch on cached activations, and keep a generator's data in memory. Several
devices of one machine share every batch. Several machines are not supported:
`MultiWorkerMirroredStrategy` fails under Keras 3 (keras-team/keras 20585).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.training.examples import Examples, batches

Batch = tuple[Any, ...]
Step = Callable[[Batch], Any]


def train(model: keras.Model, parts: Iterable[Batch], rates: Iterable[float]) -> dict[str, float]:
    """Train on every batch once.

    Args:
        model: (B, ...) -> (B, K), compiled; it keeps the traced step.
        parts: Batches: (B, ...) inputs, (B, K) one-hot labels and optionally (B,) weights.
        rates: Learning rate of each step.

    Returns:
        Loss and metrics, means over the epoch.
    """
    model.reset_metrics()
    current = None
    for batch, rate in zip(parts, rates, strict=True):
        step = model.train_function
        if step is None or len(step.input_signature) != len(batch):
            model.train_function = _traced(on_all_devices(model.train_step), batch)
        if rate != current:
            model.optimizer.learning_rate.assign(rate)
            current = rate
        model.train_function(*batch)
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def probabilities(model: keras.Model, examples: Examples, batch_size: int) -> NDArray[np.float32]:
    """Predict the examples, in order: (N, K)."""
    order, classes, outputs = np.arange(len(examples.rows)), int(model.output_shape[-1]), []
    for inputs, *_ in batches(examples, order, classes, batch_size):
        if not hasattr(model, "probabilities_function"):  # stored with the model, like the step
            model.probabilities_function = _traced(lambda x: model(x[0], training=False), (inputs,))
        outputs.append(model.probabilities_function(inputs).numpy())
    return np.concatenate(outputs)


def _traced(step: Step, batch: Batch) -> Any:
    """Trace a step once for batches of all sizes."""
    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in batch)
    return tf.function(lambda *parts: step(parts), input_signature=signature, autograph=False)


def scope(count: int) -> AbstractContextManager[Any]:
    """Create variables on several devices, which `runtime.configure` has set up.

    Args:
        count: Number of devices; 1 changes nothing.

    Raises:
        InputError: The machine has fewer.
    """
    if count == 1:
        return nullcontext()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(devices) < count:
        raise InputError(
            f"finetune.replicas must be at most {len(devices)}, the number of GPUs here, got "
            f"{count}"
        )
    # Sums in a fixed order, unlike the default.
    reduction = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(devices[:count], cross_device_ops=reduction)
    within: AbstractContextManager[Any] = strategy.scope()
    return within


def on_all_devices(step: Step) -> Step:
    """Run a step on every device of the present scope, each with a share of the batch."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return step

    def on_device(*parts: Any) -> Any:
        return step(tuple(_share(part) for part in parts))

    return lambda parts: strategy.run(on_device, args=parts)


def _share(part: Any) -> Any:
    """Return this device's rows of a batch; at least one, since an empty batch has no mean."""
    context = tf.distribute.get_replica_context()
    place, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    rows = tf.shape(part)[0]
    start = tf.minimum(place * rows // count, rows - 1)
    end = tf.maximum((place + 1) * rows // count, start + 1)
    return part[start:end]
