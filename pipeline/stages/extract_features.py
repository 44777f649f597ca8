"""Push every image once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; where training images are augmented, also
augment.json and augmented.npy (K - 1, M, D): the features of the M images' further views.

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
from pipeline.storage import arrays, derived
from pipeline.storage.arrays import RowWriter
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import write_json

_CHUNK = 1024


@dataclass
class Config:
    """Section `extract_features`."""

    batch_size: int = setting(
        32, "Images per forward pass, here, in fine-tuning and in evaluation.", least=1
    )


def run(frozen: FrozenPart, activations: store.Config, folders: Folders) -> dict[str, float]:
    """Extract features.

    Args:
        frozen: Settings of the forward pass.
        activations: Section `activations`.
        folders: `prepare` is read.

    Returns:
        Images per second, the number of features and of weights.

    Raises:
        InputError: The backbone is not available, or gives features of no use.
    """
    data, kept, out = Manifest(folders.prepare), Store(activations), folders.out
    train = data.indices("train")
    frozen, scale = scaling.resolved(frozen, data)
    augment, chosen = frozen.augment.derive(len(train))
    chosen |= scale
    built = frozen.build(data.image_size)
    source = Source.of(replace(frozen, augment=augment), built, data)
    every, last = np.arange(len(data.rows)), built.model.layers[-1].name
    computed = kept.get(source.key(last, every)) is None
    started = perf_counter()
    features = below(kept, source, last, every)
    rate = len(data.rows) / (perf_counter() - started)
    _check(features, built.name)
    arrays.share(kept.place(source.key(last, every)), out / "features.npy")
    derived.tell(chosen)
    derived.write(out, chosen)
    views = views_of(kept, source, train)
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
            "config": frozen.backbone.shaping(),
        },
    )
    how = f"at {rate:.0f} a second" if computed else "from the store"
    what = f": {built.taken}" if built.taken else ""
    print(f"{len(data.rows)} images {how}, {features.shape[1]} features{what}")
    metrics = {"features": features.shape[1], "backbone_parameters": parameters}
    return {**metrics, "images_per_second": rate} if computed else metrics


def _check(features: NDArray[np.float32], name: str) -> None:
    """Stop at features that nothing can be learnt from.

    Raises:
        InputError: Some are NaN or infinite, or all images have the same.
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
            f"{len(features)} images: its weights are damaged, or the images are not scaled as "
            "it expects (backbone.scale)"
        )
    if same and len(features) > 1:
        raise InputError(
            f"features must tell images apart, {name} gives the same for all {len(features)}: "
            "its weights are damaged, or the images are not scaled as it expects (backbone.scale)"
        )
