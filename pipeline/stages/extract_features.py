"""Push every picture once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; where training pictures are augmented, also
augment.json and augmented.npy (K - 1, M, D): the features of the M pictures' further views.

    python -m pipeline extract_features extract_features.batch_size=64
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.features import augmentation, store
from pipeline.features.activations import Source, below, views_of
from pipeline.features.store import Store
from pipeline.networks.backbones import BackboneConfig
from pipeline.settings import setting
from pipeline.storage import derived
from pipeline.storage.arrays import RowWriter
from pipeline.storage.tables import write_json


@dataclass
class Config:
    """Section `extract_features`."""

    batch_size: int = setting(
        32, "Pictures of a forward pass, here, in fine-tuning and in evaluation.", least=1
    )


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: BackboneConfig,
    augment: augmentation.Config,
    activations: store.Config,
    prepared: Path,
    out: Path,
) -> dict[str, float]:
    """Extract features.

    Args:
        config: Section `extract_features`.
        seed: Of random weights, where the backbone has no others.
        threads: As TensorFlow was configured with.
        backbone: `Config` of one of `pipeline.networks.backbones`.
        augment: Section `augment`.
        activations: Section `activations`.
        prepared: Output of prepare.
        out: Folder to write to; exists and is empty.

    Returns:
        Pictures per second, the number of features and of weights.

    Raises:
        InputError: The backbone cannot be had.
    """
    from pipeline.networks import backbones

    data = Manifest(prepared)
    built = backbones.build(backbone, data.image_size, seed)
    source = Source(
        model=built.model,
        images=data.images,
        batch_size=config.batch_size,
        threads=threads,
        backbone_sha256=built.sha256,
        images_sha256=data.images_sha256,
    )
    kept, every, last = Store(activations), np.arange(len(data.rows)), built.model.layers[-1].name
    computed = kept.get(source.key(last, every)) is None
    started = perf_counter()
    features = below(kept, source, last, every)
    rate = len(data.rows) / (perf_counter() - started)
    with RowWriter(out / "features.npy", features.shape[1:], np.float32) as rows:
        rows.append(features)
    train = data.indices("train")
    augment, chosen = augment.derive(len(train))
    derived.tell(chosen)
    derived.write(out, chosen)
    views = views_of(kept, source, train, augment, seed)
    if views:
        with RowWriter(out / "augmented.npy", (len(train), features.shape[1]), np.float32) as rows:
            for view in views:
                rows.append(below(kept, view, last, np.arange(len(train)))[None])
    if augment.layers:  # fine-tuning depends on them through this file
        write_json(out / "augment.json", asdict(augment))
    parameters = int(built.model.count_params())
    write_json(
        out / "backbone.json",
        {
            "name": built.name,
            "weights_sha256": built.weights_sha256,
            "parameters": parameters,
            "features": features.shape[1],
            "config": backbone.shaping(),
        },
    )
    how = f"at {rate:.0f} a second" if computed else "from the store"
    print(f"{len(data.rows)} pictures {how}, {features.shape[1]} features")
    metrics = {"features": features.shape[1], "backbone_parameters": parameters}
    return {**metrics, "pictures_per_second": rate} if computed else metrics
