"""Train a new head on the extracted features.

features.npy, augmented.npy + labels -> head.keras, history.csv, summary.json.

    python -m pipeline train_head train_head.learning_rate=1e-2
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.data.tasks import Fit
from pipeline.networks import heads
from pipeline.storage import workspace
from pipeline.storage.digests import digest, file_sha256
from pipeline.storage.outputs import Folders
from pipeline.training.examples import Examples, Rows, Views
from pipeline.training.settings import Training

if TYPE_CHECKING:
    import keras

    from pipeline.training.fitting import Fitted, Log


@dataclass
class Config(Training):
    """Section `train_head`; with a logistic head, only `class_weight` and `monitor` matter."""


def key(
    config: Config, head: heads.Config, seed: int, threads: int, folders: Folders
) -> dict[str, object]:
    """Return everything that a trained head depends on; arguments as for `run`."""
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
    """Train a head; returns metrics of the best epoch, and numbers of parameters."""
    import keras

    from pipeline.networks import model_file
    from pipeline.training import fitting

    features = folders.extract_features
    data = Manifest(folders.prepare)
    inputs = np.load(features / "features.npy", mmap_mode="r")
    train, val = data.indices("train"), data.indices("val")
    keras.utils.set_random_seed(seed)
    task, targets = data.task, data.targets
    model = heads.build(head, inputs.shape[1], len(data.classes), task, targets[train])
    held_out = Examples(inputs, val, targets[val], task)
    if head.solver == heads.Solver.lbfgs:
        fit_to = Examples(inputs, train, targets[train], task)
        fitted = _closed_form(config, model, fit_to, held_out, seed, threads)
        log(fitted.curve[0], 1)
    else:
        values, rows, views = inputs, train, features / "augmented.npy"
        if views.exists():
            arrays = [Rows(inputs, train), *np.load(views, mmap_mode="r")]
            values, rows = Views(arrays, seed), np.arange(len(train))
        work = workspace.work("train_head", key(config, head, seed, threads, folders))
        fit_to = Examples(values, rows, targets[train], task)
        fitted = fitting.fit(model, fit_to, held_out, config, fitting.Session(seed, work, log))
    model_file.save(model, folders.out / "head.keras")
    return fitting.report(fitted, model, folders.out, task)


def _closed_form(
    config: Config, model: keras.Model, train: Examples, val: Examples, seed: int, threads: int
) -> Fitted:
    """Set a linear head's weights in closed form, or nearly: a training of one epoch."""
    from pipeline.training import fitting, steps

    task, width = train.task, model.output_shape[-1]
    how = Fit(width, seed, threads, config.class_weight is not None)
    features = np.asarray(train.inputs[train.rows])
    weights, biases, text = task.fit(features, train.targets, how)
    model.set_weights([weights, biases])
    print(text, flush=True)

    def evaluated(examples: Examples) -> dict[str, float]:
        outputs = steps.probabilities(model, examples, 1024)
        return task.judge(examples.targets, outputs, str(config.monitor))

    on_train, on_val = evaluated(train), evaluated(val)
    both = {name: on_train[f"val_{name}"] for name in ("loss", task.quality)}
    return fitting.Fitted([{"epoch": 1, **both, **on_val}], 1, on_val)
