"""Training on several devices of one machine: each takes its share of every batch.

count -> a scope in which the model, its optimizer and their variables must be made; a step -> the
same step on all devices. Of several machines none: `MultiWorkerMirroredStrategy` fails under
Keras 3 (keras-team/keras 20585).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf

from pipeline.errors import InputError

Step = Callable[[tuple[Any, ...]], Any]


def scope(count: int) -> AbstractContextManager[Any]:
    """Where what is made lies on several devices; `runtime.configure` has seen to them.

    Args:
        count: Of the devices; 1 changes nothing.

    Raises:
        InputError: The machine has fewer.
    """
    if count == 1:
        return nullcontext()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(devices) < count:
        raise InputError(
            f"finetune.replicas must be at most {len(devices)}, the GPUs of this machine, got "
            f"{count}"
        )
    # Sums in a fixed order, unlike those of the default.
    reduction = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(devices[:count], cross_device_ops=reduction)
    within: AbstractContextManager[Any] = strategy.scope()
    return within


def on_all(step: Step) -> Step:
    """The step on every device of the present scope, each with a share of the batch.

    Args:
        step: Takes the parts of a batch, (B, ...) each.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return step

    def on_one(*parts: Any) -> Any:
        return step(tuple(_share(part) for part in parts))

    return lambda parts: strategy.run(on_one, args=parts)


def _share(part: Any) -> Any:
    """This device's rows of a batch; one at least, so that none has a mean of nothing."""
    context = tf.distribute.get_replica_context()
    place, count = context.replica_id_in_sync_group, context.num_replicas_in_sync
    rows = tf.shape(part)[0]
    start = tf.minimum(place * rows // count, rows - 1)
    end = tf.maximum((place + 1) * rows // count, start + 1)
    return part[start:end]
