"""The backbones of a sweep: that of params.yaml and those that `sweep.space.backbone` lists.

section `backbone` -> network, features and fine-tuner, each made once a process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from pipeline.cluster.settings import Config as Cluster
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.features.extraction import extract
from pipeline.features.store import Store
from pipeline.finetuning.finetuner import Finetuner
from pipeline.networks import backbones, engines
from pipeline.storage import outputs, workspace
from pipeline.storage.digests import file_sha256
from pipeline.storage.outputs import PARAMS

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.networks.backbones import Backbone

OWN = ""
"""Name of the backbone of params.yaml."""
SETTING = "backbone"
"""Of `sweep.space`: names of further ones."""

_PLAIN = {"use", "path"}


@dataclass(frozen=True)
class Network:
    """A backbone that trials are made with.

    Attributes:
        body: The network with its weights.
        features: Output of extract_features for it.
        finetuner: Fine-tunes it.
    """

    body: Backbone
    features: Path
    finetuner: Finetuner


def others(config: Config) -> list[str]:
    """The further backbones that are searched.

    Raises:
        InputError: `sweep.space.backbone` is no list of names, or the section `backbone` of
            params.yaml has settings that would be those of the others, too.
    """
    asked = config.sweep.space.get(SETTING, [])
    if not isinstance(asked, list) or not all(isinstance(name, str) for name in asked):
        raise InputError(
            "sweep.space.backbone must list files of conf/backbone or .keras files, such as "
            f"[mobilenet_v2, efficientnet_v2_b0], got {asked}"
        )
    names = [name for name in asked if name != config.backbone.use]
    section: Any = OmegaConf.load(PARAMS)
    more = set(section.get("backbone") or {}) - _PLAIN
    if names and more:
        raise InputError(
            f"sweep.space.backbone needs a section backbone of use and path alone, got also "
            f"{', '.join(sorted(more))}: put these into a file of conf/backbone and use that"
        )
    return names


def digests(config: Config) -> dict[str, str]:
    """Name of each further backbone -> digest of its file: another content is another search."""
    return {name: file_sha256(Path(backbones.section(name)["path"])) for name in others(config)}


def settings(name: str) -> dict[str, str]:
    """The section that chooses a backbone: full name -> value; empty for that of params.yaml."""
    chosen = backbones.section(name) if name != OWN else {}
    return {f"{SETTING}.{key}": value for key, value in chosen.items()}


class Networks:
    """The backbones of a sweep, made when a trial first asks for them.

    Args:
        config: The whole config.
        compose: Settings -> whole config.
        store: Keeps activations.
    """

    def __init__(
        self, config: Config, compose: Callable[[dict[str, Any]], Config], store: Store
    ) -> None:
        self._config, self._compose, self._store = config, compose, store
        self._made: dict[str, Network] = {}

    def __getitem__(self, name: str) -> Network:
        if name not in self._made:
            config = self._compose(settings(name)) if name != OWN else self._config
            self._made[name] = self._make(name, config)
        return self._made[name]

    def _make(self, name: str, config: Config) -> Network:
        prepared = outputs.ROOT / "prepare"
        size_px = Manifest(prepared).image_size
        body = backbones.build(config.backbone, size_px, config.seed)
        features = outputs.ROOT / "extract_features"
        if name != OWN:
            features = _extracted(config, body, prepared)
        finetuner = Finetuner(
            body,
            prepared,
            self._store,
            config.augment,
            engine=config.forward,
            batch_size=config.extract_features.batch_size,
            seed=config.seed,
            threads=config.threads,
        )
        return Network(body, features, finetuner)


def _extracted(config: Config, body: Backbone, prepared: Path) -> Path:
    """What extract_features writes for a backbone that params.yaml does not name."""
    key = {
        "augment": asdict(config.augment),
        "backbone": body.sha256,
        "engine": engines.described(config.forward),
        "batch_size": config.extract_features.batch_size,
        "images": Manifest(prepared).images_sha256,
        "seed": config.seed,
        "threads": config.threads,
    }
    folder = workspace.work("features", key)
    with outputs.locked(folder):
        if not folder.exists():
            with outputs.replacing(folder) as aside:
                extract(
                    config.backbone,
                    config.augment,
                    Store(config.activations),
                    engine=config.forward,
                    cluster=Cluster(),
                    batch_size=config.extract_features.batch_size,
                    seed=config.seed,
                    threads=config.threads,
                    prepared=prepared,
                    out=aside,
                )
    return folder
