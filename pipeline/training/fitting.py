"""Train a model on arrays: order, dropout and stopping depend only on (seed, epoch).

model + examples -> the weights with the best score and a learning curve. A killed training resumes
after its last finished epoch and ends with the same bytes as an uninterrupted one. Independent of
images, backbones and stages.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from pipeline.data.tasks import Task, classification
from pipeline.errors import InputError, Stopped
from pipeline.networks import graph
from pipeline.storage import curves
from pipeline.storage.curves import Curve
from pipeline.storage.outputs import locked, replacing_file
from pipeline.storage.tables import write_json
from pipeline.training import interpolation, optimizer, steps
from pipeline.training.examples import Examples, batches
from pipeline.training.settings import Training

Log = Callable[[dict[str, float], int], None]
"""Receives the metrics and the number of an epoch."""


@dataclass(frozen=True)
class Session:
    """A training, besides the model and its settings.

    Attributes:
        seed: Seed for order and dropout.
        work: Folder for the checkpoint, named after everything the result depends on; removed at
            the end.
        log: Called with every epoch; may raise `Stopped`, which removes the checkpoint.
        first_epoch: Epochs trained in an earlier phase; counting continues from it.
    """

    seed: int
    work: Path
    log: Log
    first_epoch: int = 0


@dataclass
class Fitted:
    """The result of a training, or its state after an epoch.

    Attributes:
        curve: One entry per epoch: epoch, loss, val_loss and, for both, the task's quality.
        best_epoch: Counted from 1; 0 if no epoch was better than the start.
        best: Validation metrics of the model.
        share: Position of the weights between the start (0) and `best_epoch` (1).
    """

    curve: Curve
    best_epoch: int
    best: dict[str, float]
    share: float = 1.0


def fit(
    model: keras.Model, train: Examples, val: Examples, settings: Training, session: Session
) -> Fitted:
    """Train, and keep the weights with the best validation score.

    A model that was fitted before keeps its TensorFlow traces; its optimizer starts anew. The
    result is that of a newly built model.

    Args:
        model: (B, ...) -> (B, K), with its trainable layers set.
        train: Training examples.
        val: Validation examples, evaluated after every epoch, and once before the first.
        settings: Settings of the training.
        session: Seed, checkpoint and log.

    Returns:
        The curve and the best epoch.
    """
    seed, work, log, first_epoch = session.seed, session.work, session.log, session.first_epoch
    classes = int(model.output_shape[-1])
    weights = None
    if settings.class_weight is not None:
        weights = train.task.weights(train.targets, classes)
    start = [variable.numpy() for variable in model.variables]
    count = -(-len(train.rows) // settings.batch_size)
    patience, best, last = settings.patience or math.inf, work / "best.npz", work / "last.npz"

    # Two experiments may need the same training at the same time: one waits for the other.
    with locked(work), _removed_if_stopped(work):
        optimizer.prepare(model, settings, train.task)
        generators = [layer for layer in graph.parts(model) if hasattr(layer, "seed_generator")]
        everything = [*model.variables, *model.optimizer.variables]
        if last.exists():
            state = Fitted(**json.loads(_restore(last, everything)))
            print(f"resuming after epoch {len(state.curve)}", flush=True)
        else:
            state = Fitted([], 0, judge(model, val, settings))
            _save(best, model.variables)
        epoch = len(state.curve)
        for entry in state.curve:
            log(entry, int(entry["epoch"]))
        with tqdm(
            desc="train", initial=epoch, total=settings.epochs, unit="epoch", disable=None
        ) as bar:
            while epoch < settings.epochs and epoch - state.best_epoch < patience:
                number = first_epoch + epoch
                _reseed(generators, seed, number)
                if hasattr(train.inputs, "begin"):
                    train.inputs.begin(number)
                order = np.random.default_rng([seed, number]).permutation(len(train.rows))
                parts = tqdm(
                    batches(train, order, classes, settings.batch_size, weights),
                    desc=f"epoch {number + 1}",
                    total=count,
                    unit="batch",
                    leave=False,
                    delay=2,  # only for long epochs
                    disable=None,
                )
                rates = (
                    optimizer.rate(settings, epoch * count + step, settings.epochs * count)
                    for step in range(count)
                )
                trained = steps.train(model, parts, rates)
                if not math.isfinite(trained["loss"]):
                    shutil.rmtree(work)
                    raise InputError(
                        f"the loss was {trained['loss']} in epoch {number + 1}: lower the learning "
                        f"rate ({settings.learning_rate:g})"
                    )
                # Without label smoothing and class weights, it compares with the validation loss.
                trained["loss"] = trained.pop("log_loss")
                epoch += 1
                validation = judge(model, val, settings)
                if validation["val_score"] < state.best["val_score"]:
                    state.best, state.best_epoch = validation, epoch
                    _save(best, model.variables)
                metrics = trained | validation
                state.curve.append({"epoch": first_epoch + epoch, **metrics})
                _save(last, everything, json.dumps(vars(state)))
                log(state.curve[-1], first_epoch + epoch)
                bar.update()
                bar.set_postfix({name: f"{value:.4f}" for name, value in metrics.items()})
        if epoch < settings.epochs:
            print(
                f"stopped after {epoch} of {settings.epochs} epochs: the last "
                f"{settings.patience} brought no improvement on the validation split",
                flush=True,
            )
        _restore(best, model.variables)
        if settings.interpolate and state.best_epoch:
            state.share, state.best = interpolation.interpolate(model, start, val, settings)
        shutil.rmtree(work)
        return state


def judge(model: keras.Model, val: Examples, settings: Training) -> dict[str, float]:
    """Compute the validation metrics of a model with its current weights."""
    outputs = steps.probabilities(model, val, settings.batch_size)
    return val.task.judge(val.targets, outputs, str(settings.monitor))


@contextmanager
def _removed_if_stopped(work: Path) -> Iterator[None]:
    try:
        yield
    except Stopped:
        shutil.rmtree(work)
        raise


def _reseed(layers: list[Any], seed: int, epoch: int) -> None:
    """Set the state of every random layer from (seed, epoch, its name).

    By name, so that a layer draws the same numbers whatever part of a network is trained.
    """
    for layer in layers:
        variable = layer.seed_generator.state
        words = [seed, epoch, zlib.crc32(layer.name.encode())]
        values = np.random.SeedSequence(words).generate_state(2)
        variable.assign(values.astype(variable.dtype))


def _save(path: Path, variables: list[Any], state: str = "") -> None:
    with replacing_file(path) as aside:
        np.savez(aside, *[variable.numpy() for variable in variables], state=np.array(state))


def _restore(path: Path, variables: list[Any]) -> str:
    """Assign saved values; returns the state that was saved with them."""
    with np.load(path) as saved:
        for place, variable in enumerate(variables):
            variable.assign(saved[f"arr_{place}"])
        return str(saved["state"])


def report(
    fitted: Fitted, model: keras.Model, out: Path, task: Task = classification.TASK
) -> dict[str, float]:
    """Write a training's curve and summary to `out`, and return the summary.

    Parameters of `model`, epochs, and the best epoch's validation metrics.
    """
    curves.write(out / "history.csv", fitted.curve, task.quality)
    summary: dict[str, float] = {
        "trainable_parameters": _count(model.trainable_variables),
        "total_parameters": _count(model.variables),
        "epochs": len(fitted.curve),
        "best_epoch": fitted.best_epoch,
        "share": fitted.share,
        **fitted.best,
    }
    write_json(out / "summary.json", summary)
    return summary


def _count(variables: list[Any]) -> int:
    """Count parameters, without the counters of random layers."""
    return sum(
        int(np.prod(variable.shape)) for variable in variables if "seed" not in variable.path
    )
