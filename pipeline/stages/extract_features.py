"""Extract the features of every image with the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; with augmentation also augment.json and
augmented.npy (K - 1, M, D): the features of the M training images' other views.

    python -m pipeline extract_features extract_features.batch_size=64
"""

from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.features import scaling, store
from pipeline.features.activations import below, views_of
from pipeline.features.source import FrozenPart, Source
from pipeline.features.store import Store
from pipeline.settings import setting
from pipeline.storage import arrays, derived, progress
from pipeline.storage.arrays import row_writer
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import write_json

_CHUNK = 1024


@dataclass
class Config:
    """Section `extract_features`."""

    batch_size: int = setting(
        32, "Images per forward pass, also in fine-tuning and evaluation.", least=1
    )


def run(frozen: FrozenPart, activations: store.Config, folders: Folders) -> dict[str, float]:
    """Extract features.

    Raises:
        InputError: The backbone is not available, or its features are unusable.
    """
    data, cache, out = Manifest(folders.prepare), Store(activations), folders.out
    train = data.indices("train")
    frozen, scale = scaling.resolved(frozen, data)
    augment, chosen = frozen.augment.derive(len(train))
    chosen |= scale
    built = frozen.build(data.image_size)
    source = Source.of(replace(frozen, augment=augment), built, data)
    every, last = np.arange(len(data.rows)), built.model.layers[-1].name
    computed = cache.get(source.key(last, every)) is None
    started = perf_counter()
    features = below(cache, source, last, every)
    rate = len(data.rows) / (perf_counter() - started)
    _check(features, built.name)
    arrays.share(cache.place(source.key(last, every)), out / "features.npy")
    derived.report(chosen)
    derived.write(out, chosen)
    views = views_of(cache, source, train)
    if views:
        shape = (len(train), features.shape[1])
        with row_writer(out / "augmented.npy", shape, np.float32) as append:
            for view in tqdm(views, desc="augmented.npy", unit="view", delay=1, disable=None):
                append(below(cache, view, last, np.arange(len(train)))[None])
    if augment.layers:  # fine-tuning depends on augmentation through this file
        write_json(out / "augment.json", asdict(augment))
    parameters = int(built.model.count_params())
    write_json(
        out / "backbone.json",
        {
            "name": built.name,
            "weights_sha256": built.weights_sha256,
            "parameters": parameters,
            "features": features.shape[1],
            "config": frozen.backbone.shaping(),
        },
    )
    how = f"{rate:.0f} images/s" if computed else "cached"
    part = f", {built.taken}" if built.taken else ""
    print(f"extracted {features.shape[1]} features of {len(data.rows)} images ({how}){part}")
    metrics = {"features": features.shape[1], "backbone_parameters": parameters}
    return {**metrics, "images_per_second": rate} if computed else metrics


def _check(features: NDArray[np.float32], name: str) -> None:
    """Stop at features that nothing can be learned from.

    Raises:
        InputError: Some are NaN or infinite, or all images have the same features.
    """
    broken, same = 0, True
    starts = range(0, len(features), _CHUNK)
    for start in progress.bar(starts, "checking features", unit="chunk"):
        part = np.asarray(features[start : start + _CHUNK])
        broken += int((~np.isfinite(part).all(axis=1)).sum())
        same = same and bool((part == features[0]).all())
    if broken:
        raise InputError(
            f"{name} returns NaN or infinity for {broken} of {len(features)} images: its weights "
            "are damaged, or the images are not scaled as it expects (backbone.scale)"
        )
    if same and len(features) > 1:
        raise InputError(
            f"{name} returns the same features for all {len(features)} images: its weights are "
            "damaged, or the images are not scaled as it expects (backbone.scale)"
        )
