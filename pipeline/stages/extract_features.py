"""Push every picture once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; where training pictures are augmented,
also augmented.npy (K - 1, M, D): the features of the M training pictures' further views.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from pipeline import activations, augmentation
from pipeline.activations import Source, Store
from pipeline.arrays import RowWriter
from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.outputs import write_json


@dataclass
class Config:
    """Section `extract_features`.

    Attributes:
        batch_size: Pictures of a forward pass, here, in fine-tuning and in evaluation.
    """

    batch_size: int = 32


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: Any,
    augment: augmentation.Config,
    cache: activations.Config,
    prepared: Path,
    out: Path,
) -> dict[str, float]:
    """Extract features.

    Args:
        config: Section `extract_features`.
        seed: Of random weights, where the backbone has no others.
        threads: As TensorFlow was configured with.
        backbone: `Config` of one of `pipeline.backbones`.
        augment: Section `augment`.
        cache: Section `activations`.
        prepared: Output of prepare.
        out: Folder to write to; exists and is empty.

    Returns:
        Pictures per second, the number of features and of weights.

    Raises:
        InputError: A batch size below 1, or a backbone that cannot be had.
    """
    from pipeline import backbones

    if config.batch_size < 1:
        raise InputError(f"extract_features.batch_size must be at least 1, got {config.batch_size}")
    augment.check()
    data = Manifest(prepared)
    built = backbones.build(backbone, data.image_size, seed)
    source = Source(
        model=built.model,
        images=data.images,
        batch_size=config.batch_size,
        threads=threads,
        backbone_sha256=built.weights_sha256,
        images_sha256=data.images_sha256,
    )
    store, every, last = Store(cache), np.arange(len(data.rows)), built.model.layers[-1].name
    computed = store.get(source.key(last, every)) is None
    started = perf_counter()
    features = activations.below(store, source, last, every)
    rate = len(data.rows) / (perf_counter() - started)
    with RowWriter(out / "features.npy", features.shape[1:], np.float32) as rows:
        rows.append(features)
    train = data.indices("train")
    views = activations.views(store, source, train, augment, seed)
    if views:
        with RowWriter(out / "augmented.npy", (len(train), features.shape[1]), np.float32) as rows:
            for view in views:
                rows.append(activations.below(store, view, last, np.arange(len(train)))[None])
    parameters = int(built.model.count_params())
    write_json(
        out / "backbone.json",
        {
            "name": built.name,
            "weights_sha256": built.weights_sha256,
            "parameters": parameters,
            "features": features.shape[1],
            "config": asdict(backbone),
        },
    )
    how = f"at {rate:.0f} a second" if computed else "from the store"
    print(f"{len(data.rows)} pictures {how}, {features.shape[1]} features")
    metrics = {"features": features.shape[1], "backbone_parameters": parameters}
    return {**metrics, "pictures_per_second": rate} if computed else metrics
