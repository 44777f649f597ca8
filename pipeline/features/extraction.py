"""Push every picture once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; where training pictures are augmented, also
augment.json and augmented.npy (K - 1, M, D): the features of the M pictures' further views.
"""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.cluster.settings import Config as Cluster
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.features import augmentation
from pipeline.features.activations import Source, below, views_of
from pipeline.features.store import Store
from pipeline.networks import backbones, engines
from pipeline.networks.backbones import BackboneConfig
from pipeline.storage import arrays, derived
from pipeline.storage.arrays import RowWriter
from pipeline.storage.tables import write_json

_CHUNK = 1024


def extract(
    backbone: BackboneConfig,
    augment: augmentation.Config,
    kept: Store,
    *,
    engine: engines.Config,
    cluster: Cluster,
    batch_size: int,
    seed: int,
    threads: int,
    prepared: Path,
    out: Path,
) -> dict[str, float]:
    """Extract features.

    Args:
        backbone: `Config` of one of `pipeline.networks.backbones`.
        augment: Section `augment`.
        kept: Keeps what was computed.
        engine: Section `forward`.
        cluster: Section `cluster`.
        batch_size: Pictures of a forward pass.
        seed: Of random weights, where the backbone has no others, and of views.
        threads: As TensorFlow was configured with.
        prepared: Output of prepare.
        out: Folder to write to; exists and is empty.

    Returns:
        Pictures per second, the number of features and of weights.

    Raises:
        InputError: The backbone cannot be had.
    """
    data = Manifest(prepared)
    built = backbones.build(backbone, data.image_size, seed)
    source = Source(
        model=built.model,
        images=data.images,
        batch_size=batch_size,
        threads=threads,
        backbone_sha256=built.sha256,
        images_sha256=data.images_sha256,
        engine=engine,
        cluster=cluster,
        origin=built.origin,
    )
    every, last = np.arange(len(data.rows)), built.model.layers[-1].name
    computed = kept.get(source.key(last, every)) is None
    started = perf_counter()
    features = below(kept, source, last, every)
    rate = len(data.rows) / (perf_counter() - started)
    _check(features, built.name)
    arrays.share(kept.place(source.key(last, every)), out / "features.npy")
    train = data.indices("train")
    augment, chosen = augment.derive(len(train))
    derived.tell(chosen)
    derived.write(out, chosen)
    views = views_of(kept, source, train, augment, seed)
    if views:
        with RowWriter(out / "augmented.npy", (len(train), features.shape[1]), np.float32) as rows:
            for view in tqdm(views, desc="augmented.npy", unit="view", delay=1, disable=None):
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
    what = f": {built.taken}" if built.taken else ""
    print(f"{len(data.rows)} pictures {how}, {features.shape[1]} features{what}")
    metrics = {"features": features.shape[1], "backbone_parameters": parameters}
    return {**metrics, "pictures_per_second": rate} if computed else metrics


def _check(features: NDArray[np.float32], name: str) -> None:
    """Stop at features that nothing can be learnt from.

    Raises:
        InputError: Some are NaN or infinite, or all pictures have the same.
    """
    broken, same = 0, True
    starts = range(0, len(features), _CHUNK)
    for start in tqdm(
        starts, "checking features", unit="chunk", delay=1, leave=False, disable=None
    ):
        part = np.asarray(features[start : start + _CHUNK])
        broken += int((~np.isfinite(part).all(axis=1)).sum())
        same = same and bool((part == features[0]).all())
    if broken:
        raise InputError(
            f"features must be finite numbers, {name} gives NaN or infinity for {broken} of "
            f"{len(features)} pictures: its weights are damaged, or the pictures are not scaled as "
            "it expects (backbone.scale)"
        )
    if same and len(features) > 1:
        raise InputError(
            f"features must tell pictures apart, {name} gives the same for all {len(features)}: "
            "its weights are damaged, or the pictures are not scaled as it expects (backbone.scale)"
        )
