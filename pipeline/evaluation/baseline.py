"""The same network without its pre-trained weights: what transfer is compared with.

backbone's architecture + head's + pictures -> a classifier trained from scratch.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.manifest import Manifest
from pipeline.networks import backbones
from pipeline.storage import workspace
from pipeline.storage.digests import file_sha256
from pipeline.training.settings import Training

if TYPE_CHECKING:
    import keras


def train(
    settings: Training,
    backbone: Any,
    head: keras.Model,
    prepared: Path,
    *,
    seed: int,
    threads: int,
    calibrate: bool,
) -> keras.Model:
    """Train a network whose weights, all of them, start at random.

    Args:
        settings: Of the training.
        backbone: `Config` of one of `pipeline.networks.backbones`.
        head: (B, D) -> (B, K), whose architecture is taken, too.
        prepared: Output of prepare.
        seed: Of the first weights, order and dropout.
        threads: As TensorFlow was configured with.
        calibrate: Whether it gets a temperature, fitted on the validation split.

    Returns:
        (B, H, W, 3) -> (B, K) probabilities, as after its best epoch.
    """
    import keras

    from pipeline.networks import heads
    from pipeline.training import calibration, fitting
    from pipeline.training.examples import Examples

    data = Manifest(prepared)
    known = backbones.build(backbone, data.image_size, seed).model
    keras.utils.set_random_seed(seed)
    body, top = keras.models.clone_model(known), keras.models.clone_model(head)
    model = heads.join(body, top, "from_scratch")
    key = {
        "config": asdict(settings),
        "model": model.to_json(),
        "seed": seed,
        "threads": threads,
        "images": data.images_sha256,
        "manifest": file_sha256(prepared / "manifest.csv"),
    }
    train, val = (data.indices(split) for split in ("train", "val"))
    fitted = fitting.fit(
        model,
        Examples(data.images, train, data.labels[train]),
        Examples(data.images, val, data.labels[val]),
        settings,
        seed=seed,
        work=workspace.work("baseline", key),
        log=lambda *_: None,
    )
    if calibrate:
        top = calibration.scaled(top, fitted.best["temperature"])
        return heads.join(body, top, "from_scratch")
    return model
