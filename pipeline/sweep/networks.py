"""The backbones of a sweep: that of params.yaml and those in `sweep.space.backbone`.

section `backbone`, size, fold -> network, features and fine-tuner, each created once per process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.cluster.connection import Config as Cluster
from pipeline.config import Config, choices, read
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.features import scaling, store
from pipeline.features.source import FrozenPart
from pipeline.features.store import Store
from pipeline.finetuning.finetuner import Finetuner
from pipeline.networks import backbones, engines
from pipeline.stages import extract_features, prepare
from pipeline.storage import outputs, workspace
from pipeline.storage.digests import dvc_md5, file_sha256
from pipeline.storage.outputs import PARAMS, Folders
from pipeline.sweep import folds

if TYPE_CHECKING:
    from pipeline.networks.backbones import Backbone

OWN = ""
"""Name of the backbone of params.yaml."""
SETTING = "backbone"
"""Key of `sweep.space` for names of further backbones."""

SIZE = "prepare.image_size"
"""Key of `sweep.space` for image sizes in px."""

_PLAIN = {"use", "path"}
_TIMED, _PASSES = 32, 5


@dataclass(frozen=True)
class Network:
    """A backbone for trials.

    Attributes:
        body: The network with its weights.
        prepared: Output of prepare for it: at its size, with the splits of its fold.
        features: Output of extract_features for it.
        finetuner: Fine-tunes it.
    """

    body: Backbone
    prepared: Path
    features: Path
    finetuner: Finetuner

    def ms_per_image(self, config: Config) -> float:
        """Measure the milliseconds per image of a forward pass here: the median of a few."""
        images = Manifest(self.prepared).images[:_TIMED]
        forward = engines.forward(
            self.body.model,
            config.forward,
            batch_size=config.extract_features.batch_size,
            threads=config.threads,
            images=images,
        )
        forward.all(images)
        times = []
        for _ in range(_PASSES):
            started = perf_counter()
            forward.all(images)
            times.append(perf_counter() - started)
        return float(1000 * np.median(times) / len(images))


@dataclass(frozen=True)
class Key:
    """The network that a training needs.

    Attributes:
        name: Name of the backbone; `OWN` for that of params.yaml.
        size_px: Side of the images; None for that of params.yaml.
        fold: Fold of the cross-validation; None for the validation split.
    """

    name: str = OWN
    size_px: int | None = None
    fold: int | None = None


def others(config: Config) -> list[str]:
    """List the further backbones to search.

    Raises:
        InputError: `sweep.space.backbone` is not a list of names, or section `backbone` of
            params.yaml has settings that would also apply to the others.
    """
    listed = config.sweep.space.get(SETTING, [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise InputError(
            "sweep.space.backbone must list files of conf/backbone or .keras files, such as "
            f"[mobilenet_v2, efficientnet_v2_b0], got {listed}"
        )
    for name in listed:
        _check(name)
    names = [name for name in listed if name != config.backbone.use]
    more = set(read(PARAMS).get("backbone") or {}) - _PLAIN
    if names and more:
        raise InputError(
            f"sweep.space.backbone requires a section backbone with only use and path, got also "
            f"{', '.join(sorted(more))}: move these to a file in conf/backbone and use that"
        )
    return names


def _check(name: str) -> None:
    """Stop at a backbone that does not exist.

    Raises:
        InputError: It is neither a file in conf/backbone, nor a model or KerasHub folder on disk.
    """
    if Path(backbones.section(name)["path"]).exists():
        return
    names = choices("backbone")
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"conf/backbone has {', '.join(names)}"
    raise InputError(
        f"sweep.space.backbone must list files of conf/backbone, .keras files or KerasHub folders, "
        f"got {name!r}: {remedy}"
    )


def digests(config: Config) -> dict[str, str]:
    """Map further backbones to digests of their files: other content is another search."""
    return {name: dvc_md5(Path(backbones.section(name)["path"])) for name in others(config)}


def settings(name: str) -> dict[str, str]:
    """Return the settings that choose a backbone: full name -> value."""
    return {f"{SETTING}.{key}": value for key, value in backbones.section(name).items()}


class Networks:
    """The backbones of a sweep, created when a trial first needs them."""

    def __init__(
        self, config: Config, compose: Callable[[dict[str, Any]], Config], store: Store
    ) -> None:
        self._config, self._compose, self._store = config, compose, store
        self._made: dict[Key, Network] = {}

    def __getitem__(self, key: Key) -> Network:
        if key not in self._made:
            config = self._compose(settings(key.name)) if key.name != OWN else self._config
            self._made[key] = self._make(key, config)
        return self._made[key]

    def _make(self, key: Key, config: Config) -> Network:
        plain = outputs.ROOT / "prepare"
        prepared = _prepared(config, key.size_px)
        if key.fold is not None:
            prepared = folds.split(prepared, key.fold, config.sweep.folds, config.seed)
        features = outputs.ROOT / "extract_features"
        frozen = replace(config.frozen, cluster=Cluster())  # runs in its worker
        if key.name == OWN:
            frozen = scaling.as_extracted(frozen, features)
        else:
            frozen, _ = scaling.resolved(frozen, Manifest(plain))
        whole = Key(key.name, key.size_px)  # folds share its weights
        size_px = Manifest(prepared).image_size
        body = self[whole].body if key != whole else frozen.build(size_px)
        if key.name != OWN or prepared != plain:
            features = _extracted(frozen, config.activations, body, prepared)
        finetuner = Finetuner(body, prepared, self._store, frozen)
        return Network(body, prepared, features, finetuner)


def _prepared(config: Config, size_px: int | None) -> Path:
    """Return the output of prepare for a size that params.yaml does not name."""
    plain = outputs.ROOT / "prepare"
    if size_px is None or size_px == Manifest(plain).image_size:
        return plain
    resized = replace(config.prepare, image_size=size_px)
    key = {
        "prepare": asdict(resized),
        "data": asdict(config.data),
        "manifest": file_sha256(plain / "manifest.csv"),
        "seed": config.seed,
    }
    return outputs.made(
        workspace.work("prepared", key),
        lambda aside: prepare.run(resized, config.seed, config.data, Cluster(), Folders(aside)),
    )


def _extracted(
    frozen: FrozenPart, activations: store.Config, body: Backbone, prepared: Path
) -> Path:
    """Return the output of extract_features for a backbone that params.yaml does not name."""
    key = {
        **frozen.key(body),
        "images": Manifest(prepared).images_sha256,
        "manifest": file_sha256(prepared / "manifest.csv"),
    }
    return outputs.made(
        workspace.work("features", key),
        lambda aside: extract_features.run(frozen, activations, Folders(aside, prepared)),
    )
