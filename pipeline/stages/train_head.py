"""Train a new head on the extracted features.

features.npy, augmented.npy + labels -> head.keras, history.csv, summary.json.

    python -m pipeline train_head train_head.learning_rate=1e-2
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.networks import heads
from pipeline.storage import workspace
from pipeline.storage.digests import digest, file_sha256
from pipeline.storage.outputs import Folders
from pipeline.training.examples import Examples, Rows, Views, batches
from pipeline.training.settings import Training

if TYPE_CHECKING:
    import keras

    from pipeline.training.fitting import Fitted, Log


@dataclass
class Config(Training):
    """Section `train_head`; for a logistic head only `class_weight` and `monitor` matter."""


def key(
    config: Config, head: heads.Config, seed: int, threads: int, folders: Folders
) -> dict[str, object]:
    """Everything that a trained head depends on; arguments as for `run`."""
    return {
        "config": asdict(config),
        "head": asdict(head),
        "seed": seed,
        "threads": threads,
        "manifest": file_sha256(folders.prepare / "manifest.csv"),
        "features": digest(folders.extract_features),
    }


def run(
    config: Config, head: heads.Config, seed: int, threads: int, folders: Folders, log: Log
) -> dict[str, float]:
    """Train a head.

    Args:
        config: How to train it.
        head: Section `head`.
        seed: Of the head's first weights, the order, dropout and views.
        threads: As TensorFlow was configured with.
        folders: `prepare` and `extract_features` are read.
        log: Called with the metrics of every epoch.

    Returns:
        Loss and accuracy of the best epoch, and the head's parameters.
    """
    import keras

    from pipeline.networks import model_file
    from pipeline.training import fitting

    features = folders.extract_features
    data = Manifest(folders.prepare)
    inputs = np.load(features / "features.npy", mmap_mode="r")
    train, val = data.indices("train"), data.indices("val")
    keras.utils.set_random_seed(seed)
    model = heads.build(head, inputs.shape[1], len(data.classes))
    judged_on = Examples(inputs, val, data.labels[val])
    if head.solver == heads.Solver.lbfgs:
        fit_to = Examples(inputs, train, data.labels[train])
        fitted = _regression(config, model, fit_to, judged_on, seed, threads)
        log(fitted.curve[0], 1)
    else:
        shown, rows, views = inputs, train, features / "augmented.npy"
        if views.exists():
            arrays = [Rows(inputs, train), *np.load(views, mmap_mode="r")]
            shown, rows = Views(arrays, seed), np.arange(len(train))
        work = workspace.work("train_head", key(config, head, seed, threads, folders))
        fit_to = Examples(shown, rows, data.labels[train])
        fitted = fitting.fit(model, fit_to, judged_on, config, fitting.Session(seed, work, log))
    model_file.save(model, folders.out / "head.keras")
    return fitting.report(fitted, model, folders.out)


def _regression(
    config: Config,
    model: keras.Model,
    train: Examples,
    val: Examples,
    seed: int,
    threads: int,
) -> Fitted:
    """Give a linear head the weights of a logistic regression: a training of one epoch."""
    from pipeline.training import fitting, logistic, score, steps

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
        how += f", log loss {chosen.losses.mean():.4f} on images left out"
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
