"""Adam and AdamW with a learning rate for each variable and each step.

settings + shares -> an optimizer, built once and reset for every further training.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from pipeline.data.tasks import Task, classification
from pipeline.networks import graph
from pipeline.training.settings import Training


class _Adam(keras.optimizers.Adam):
    """Adam, or AdamW with a weight decay, with a learning rate for each variable."""

    shares: tuple[float, ...]
    """Fractions of the learning rate, in order of the variables."""
    traced: tuple[Any, ...]
    """Everything that a step traced with this optimizer depends on."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Apply Keras' own step with the variable's learning rate."""
        # Keras' optimizers use the same name to find a variable's state.
        share = self.shares[self._get_variable_index(variable)]
        rate = learning_rate if share == 1 else learning_rate * share
        super().update_step(gradient, variable, rate)


def rate(settings: Training, step: int, steps: int) -> float:
    """Compute the learning rate of a `step`, counted from 0, of `steps` in the whole training.

    Linear warm-up, then constant or cosine decay to zero. Source: Loshchilov and Hutter 2017, SGDR;
    without its restarts.
    """
    warm = settings.warmup * steps
    if step < warm:
        return settings.learning_rate * min(1.0, (step + 1) / warm)
    if not settings.cosine:
        return settings.learning_rate
    done = (step - warm) / max(1.0, steps - warm)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def prepare(model: keras.Model, settings: Training, task: Task = classification.TASK) -> None:
    """Give the model a fresh optimizer and loss, reusing existing ones if they fit.

    Its trainable layers are already set.
    """
    trained = model.trainable_variables
    shares = rate_shares(model, settings.lowest_rate)
    depends_on = (
        tuple(id(variable) for variable in trained),
        bool(settings.weight_decay),
        settings.clip_norm,
        settings.label_smoothing,
        tuple(shares.get(variable.path, 1.0) for variable in trained),
    )
    if getattr(getattr(model, "optimizer", None), "traced", None) != depends_on:
        optimizer = _Adam(settings.learning_rate, global_clipnorm=settings.clip_norm, name="adam")
        optimizer.shares, optimizer.traced = depends_on[-1], depends_on
        if settings.weight_decay:
            # A variable, so that another value needs no new trace.
            optimizer.weight_decay = keras.Variable(0.0, trainable=False, name="weight_decay")
            vectors = [variable for variable in trained if len(variable.shape) < 2]
            optimizer.exclude_from_weight_decay(var_list=vectors)
        model.compile(optimizer=optimizer, **task.compiled(model, settings.label_smoothing))
        optimizer.build(trained)
        # Metrics must exist before a step is traced.
        some = np.full((1, model.output_shape[-1]), 0.5, dtype=np.float32)
        model.compute_metrics(None, some, some)
    # The optimizer starts from zeros.
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    model.optimizer.learning_rate.assign(settings.learning_rate)
    if settings.weight_decay:
        model.optimizer.weight_decay.assign(settings.weight_decay)


def rate_shares(above: keras.Model, lowest: float) -> dict[str, float]:
    """Map variable paths to fractions of the learning rate: `lowest` at the cut, 1 at the head.

    In between, it decreases by the same factor from each cut point to the one below. Absent
    variables use the full rate.
    """
    if lowest == 1:
        return {}
    places = graph.segments(above)
    last = max(places.values())
    return {
        variable.path: lowest ** (1 - places[id(layer)] / last)
        for layer in above.layers
        for variable in layer.trainable_variables
        if last and places[id(layer)] < last
    }
