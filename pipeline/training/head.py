"""Train a head on extracted features.

features.npy, augmented.npy + labels -> head.keras, history.csv, summary.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.networks import heads, model_file
from pipeline.storage import workspace
from pipeline.storage.digests import digest, file_sha256
from pipeline.training import fitting, logistic, score, steps
from pipeline.training.examples import Examples, Rows, Views, batches
from pipeline.training.settings import Training


def key(
    config: Training,
    head: heads.Config,
    *,
    seed: int,
    threads: int,
    prepared: Path,
    features: Path,
) -> dict[str, object]:
    """Everything that a trained head depends on; arguments as for `train`."""
    return {
        "config": asdict(config),
        "head": asdict(head),
        "seed": seed,
        "threads": threads,
        "manifest": file_sha256(prepared / "manifest.csv"),
        "features": digest(features),
    }


def train(
    config: Training,
    head: heads.Config,
    *,
    seed: int,
    threads: int,
    prepared: Path,
    features: Path,
    out: Path,
    log: Callable[[dict[str, float], int], None],
) -> dict[str, float]:
    """Train a head.

    Args:
        config: How to train it; of the logistic head, only `class_weight` and `monitor` matter.
        head: Section `head`.
        seed: Of the head's first weights, the order, dropout and views.
        threads: As TensorFlow was configured with.
        prepared: Output of prepare.
        features: Output of extract_features.
        out: Folder to write to; exists and is empty.
        log: Called with the metrics of every epoch.

    Returns:
        Loss and accuracy of the best epoch, and the head's parameters.
    """
    data = Manifest(prepared)
    inputs = np.load(features / "features.npy", mmap_mode="r")
    train, val = data.indices("train"), data.indices("val")
    keras.utils.set_random_seed(seed)
    model = heads.build(head, inputs.shape[1], len(data.classes))
    judged_on = Examples(inputs, val, data.labels[val])
    if head.solver == heads.Solver.lbfgs:
        fitted = _regression(
            config,
            model,
            Examples(inputs, train, data.labels[train]),
            judged_on,
            seed=seed,
            threads=threads,
        )
        log(fitted.curve[0], 1)
    else:
        shown, rows, views = inputs, train, features / "augmented.npy"
        if views.exists():
            arrays = [Rows(inputs, train), *np.load(views, mmap_mode="r")]
            shown, rows = Views(arrays, seed), np.arange(len(train))
        depends = key(
            config, head, seed=seed, threads=threads, prepared=prepared, features=features
        )
        fitted = fitting.fit(
            model,
            Examples(shown, rows, data.labels[train]),
            judged_on,
            config,
            seed=seed,
            work=workspace.work("train_head", depends),
            log=log,
        )
    model_file.save(model, out / "head.keras")
    return fitting.report(fitted, model, out)


def _regression(
    config: Training,
    model: keras.Model,
    train: Examples,
    val: Examples,
    *,
    seed: int,
    threads: int,
) -> fitting.Fitted:
    """Give a linear head the weights of a logistic regression: a training of one epoch."""
    chosen = logistic.fit(
        np.asarray(train.inputs[train.rows]),
        train.labels,
        classes=model.output_shape[-1],
        balanced=config.class_weight is not None,
        seed=seed,
        threads=threads,
    )
    model.set_weights([chosen.weights, chosen.biases])
    how = f"logistic regression, C = {chosen.strength:g}"
    if len(chosen.losses):
        how += f", log loss {chosen.losses.mean():.4f} on pictures left out"
    print(how, flush=True)

    def judged(examples: Examples) -> dict[str, float]:
        shown = batches(examples, np.arange(len(examples.rows)), model.output_shape[-1], 1024)
        probabilities = steps.probabilities(model, shown)
        return score.judge(examples.labels, probabilities, config.monitor)

    fitted_to, left_out = judged(train), judged(val)
    entry = {
        "epoch": 1,
        "loss": fitted_to["val_loss"],
        "accuracy": fitted_to["val_accuracy"],
        **left_out,
    }
    return fitting.Fitted([entry], 1, left_out)
