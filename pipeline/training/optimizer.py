"""Adam and AdamW with a rate of its own for each variable.

settings + shares -> an optimizer, made once and as good as new for every further training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from pipeline.training.settings import Training

Shares = Mapping[str, float]
"""Path of a variable -> its share of the learning rate; 1 where it has none."""


class _Shared:
    """What both optimizers have in common."""

    shares: tuple[float, ...]
    """Of the learning rate, in order of the variables."""
    traced: tuple[Any, ...]
    """What a step that was traced with this optimizer has taken for granted."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras' own, at the variable's rate."""
        # Keras' own optimizers find what belongs to a variable by this name, too.
        share = self.shares[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        rate = learning_rate if share == 1 else learning_rate * share
        super().update_step(gradient, variable, rate)  # type: ignore[misc]


class _Adam(_Shared, keras.optimizers.Adam):
    pass


class _AdamW(_Shared, keras.optimizers.AdamW):
    pass


def prepare(model: keras.Model, settings: Training, shares: Shares, steps: int) -> None:
    """Give the model a fresh optimizer and loss, or make those it has as good as fresh.

    Args:
        model: (B, ...) -> (B, K) probabilities, its trainable layers chosen.
        settings: Of the training.
        shares: Of the learning rate.
        steps: Of the whole training.
    """
    momentum = 1 - 1 / max(1.0, settings.average * steps)
    trained = model.trainable_variables
    taken = (
        tuple(id(variable) for variable in trained),
        bool(settings.weight_decay),
        settings.clip_norm,
        settings.label_smoothing,
        momentum,
        tuple(shares.get(variable.path, 1.0) for variable in trained),
    )
    if getattr(getattr(model, "optimizer", None), "traced", None) != taken:
        kind = _AdamW if settings.weight_decay else _Adam
        optimizer = kind(
            settings.learning_rate,
            global_clipnorm=settings.clip_norm,
            use_ema=settings.average > 0,
            ema_momentum=momentum,
            name="adam",
        )
        optimizer.shares, optimizer.traced = taken[-1], taken
        if settings.weight_decay:
            # A variable, so that another value needs no other trace.
            optimizer.weight_decay = keras.Variable(0.0, trainable=False, name="weight_decay")
            vectors = [variable for variable in trained if len(variable.shape) < 2]
            optimizer.exclude_from_weight_decay(var_list=vectors)
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=settings.label_smoothing),
            metrics=["accuracy"],
        )
        optimizer.build(trained)
        _build_metrics(model)
    # Both optimizers start from zeros.
    for variable in model.optimizer.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    model.optimizer.learning_rate.assign(settings.learning_rate)
    if settings.weight_decay:
        model.optimizer.weight_decay.assign(settings.weight_decay)


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Let the model have the averages of its weights, where its optimizer keeps them.

    Source: Polyak and Juditsky 1992; with a horizon that fits short trainings.

    Args:
        model: As `prepare` has left it, trained for a step or more.
    """
    if not model.optimizer.use_ema:
        yield
        return
    trained = model.trainable_variables
    present = [variable.numpy() for variable in trained]
    model.optimizer.finalize_variable_values(trained)
    try:
        yield
    finally:
        for variable, value in zip(trained, present, strict=True):
            variable.assign(value)


def _build_metrics(model: keras.Model) -> None:
    """Their variables must be there before a step is traced."""
    some = np.full((1, model.output_shape[-1]), 0.5, dtype=np.float32)
    model.compute_metrics(None, some, some)
