"""Train a new head on the extracted features.

features.npy, augmented.npy + labels -> head.keras, history.csv, summary.json.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline import augmentation, heads, workspace
from pipeline.manifest import Manifest
from pipeline.outputs import file_sha256
from pipeline.training import Training


@dataclass
class Config(Training):
    """Section `train_head`: see `Training`."""


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    head: heads.Config,
    prepared: Path,
    features: Path,
    out: Path,
    log: Callable[[dict[str, float], int], None],
) -> dict[str, float]:
    """Train a head.

    Args:
        config: Section `train_head`.
        seed: Of the head's first weights, the order, dropout and views.
        threads: As TensorFlow was configured with; part of what a checkpoint belongs to.
        head: Section `head`.
        prepared: Output of prepare.
        features: Output of extract_features.
        out: Folder to write to; exists and is empty.
        log: Called with the metrics of every epoch.

    Returns:
        Loss and accuracy of the best epoch, and the head's parameters.
    """
    import keras

    from pipeline import fitting, model_file
    from pipeline.examples import Examples

    config.check("train_head")
    data = Manifest(prepared)
    inputs = np.load(features / "features.npy", mmap_mode="r")
    train, val = data.indices("train"), data.indices("val")
    shown, rows, views = inputs, train, features / "augmented.npy"
    if views.exists():
        arrays = [augmentation.Rows(inputs, train), *np.load(views, mmap_mode="r")]
        shown, rows = augmentation.Views(arrays, seed), np.arange(len(train))
    keras.utils.set_random_seed(seed)
    model = heads.build(head, inputs.shape[1], len(data.classes))
    key = {
        "config": asdict(config),
        "head": asdict(head),
        "seed": seed,
        "threads": threads,
        "manifest": file_sha256(prepared / "manifest.csv"),
        "features": file_sha256(features / "features.npy"),
        "augmented": file_sha256(views) if views.exists() else None,
    }
    work = workspace.work("train_head", key)
    fitted = fitting.fit(
        model,
        Examples(shown, rows, data.labels[train]),
        Examples(inputs, val, data.labels[val]),
        config,
        seed=seed,
        work=work,
        log=log,
    )
    model_file.save(model, out / "head.keras")
    return fitting.report(fitted, model, out)
