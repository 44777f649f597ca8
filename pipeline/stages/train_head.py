"""Train a new head on the extracted features.

features.npy + labels -> head.keras, history.csv, summary.json.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline import heads, workspace
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
        seed: Of the head's first weights, the order and dropout.
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

    config.check("train_head")
    data = Manifest(prepared)
    inputs = np.load(features / "features.npy", mmap_mode="r")
    examples = {
        split: fitting.Examples(inputs, rows, data.labels[rows])
        for split in ("train", "val")
        for rows in [data.indices(split)]
    }
    keras.utils.set_random_seed(seed)
    model = heads.build(head, inputs.shape[1], len(data.classes))
    key = {
        "config": asdict(config),
        "head": asdict(head),
        "seed": seed,
        "threads": threads,
        "manifest": file_sha256(prepared / "manifest.csv"),
        "features": file_sha256(features / "features.npy"),
    }
    work = workspace.work("train_head", key)
    fitted = fitting.fit(
        model, examples["train"], examples["val"], config, seed=seed, work=work, log=log
    )
    model_file.save(model, out / "head.keras")
    return fitting.report(fitted, model, out)
