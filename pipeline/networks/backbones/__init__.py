"""Pre-trained networks, one module per kind.

A kind is a module with a `Config`, a `BackboneConfig` whose `kind` is the module's name, and
`build(config, image_size) -> Backbone`; `sides(config)` if the network does not take images of any
size; and `scalings(config, image_size)` if it has a setting `scale`. To add a kind, add such a
module and a YAML file in conf/backbone/ (docs/extending.md). Modules import Keras inside their
functions, so that reading a config stays fast.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.settings import AUTO, REQUIRED, setting

if TYPE_CHECKING:
    import keras


@dataclass
class BackboneConfig:
    """Section `backbone`: settings of every kind of network; each kind adds its own."""

    kind: str = "???"
    use: str = setting(REQUIRED, "Pre-trained network.", group="backbone")
    path: str = setting(
        REQUIRED,
        "Weights or model file, watched by DVC for changes; networks without one name their file "
        "in conf/backbone/.",
    )

    takes_folders = False
    """True if `path` may be a folder."""

    def shaping(self) -> dict[str, Any]:
        """Return the settings that shape the network, without file locations."""
        return {k: v for k, v in asdict(self).items() if k not in ("use", "path")}

    def file(self) -> tuple[str, Path] | None:
        """Return the setting that names a required file, and the file."""
        return None


@dataclass(frozen=True)
class Backbone:
    """A backbone and the origin of its weights.

    Attributes:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, D) features, pooled. Its first layers are
            the preprocessing.
        name: Name of the network, such as `MobileNetV2`.
        taken: Explanation of which part of the model the features are, if it had to be found.
    """

    model: keras.Model
    name: str
    taken: str = ""

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights' values, in order, independent of the file."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            digest.update(str((variable.shape, variable.dtype)).encode())
            digest.update(variable.numpy().tobytes())
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Digest of everything that shapes the features: weights, and graph with constants."""
        from pipeline.networks import graph

        parts = f"{self.weights_sha256} {graph.digest(self.model)}"
        return hashlib.sha256(parts.encode()).hexdigest()


def build(config: BackboneConfig, image_size: int, seed: int) -> Backbone:
    """Build a backbone from the `Config` of a module here, for images of `image_size` px.

    `seed` is for the initial weights if `weights` is null.

    Raises:
        InputError: Weights are missing, or network and size do not fit.
    """
    import keras

    module = importlib.import_module(f"{__name__}.{config.kind}")
    keras.utils.set_random_seed(seed)
    backbone: Backbone = module.build(config, image_size)
    return backbone


def sides(config: BackboneConfig) -> tuple[int, int] | None:
    """Return the smallest and largest side in px that a network takes; None for any."""
    module = importlib.import_module(f"{__name__}.{config.kind}")
    limits: tuple[int, int] | None = module.sides(config) if hasattr(module, "sides") else None
    return limits


def scalings(config: BackboneConfig, image_size: int) -> tuple[tuple[str, ...], str]:
    """List the values of `backbone.scale` to try: none if it is known.

    With an explanation, if the model itself contains its scaling.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    if getattr(config, "scale", None) != AUTO:
        return (), ""
    options: tuple[tuple[str, ...], str] = module.scalings(config, image_size)
    return options


def with_scale(config: BackboneConfig, scale: str) -> BackboneConfig:
    """Return the network with a value of `backbone.scale`, which only some kinds have."""
    changes: dict[str, Any] = {"scale": scale}
    return replace(config, **changes)


def without_weights(config: BackboneConfig) -> BackboneConfig:
    """Return the network with random weights, if possible and only its layers matter."""
    changes: dict[str, Any] = {"weights": None} if hasattr(config, "weights") else {}
    return replace(config, **changes)


def section(name: str) -> dict[str, str]:
    """Return section `backbone` for a file of conf/backbone, or for a model on disk."""
    if (Path(name) / "config.json").is_file():
        return {"use": "keras_hub", "path": name, "preset": f"./{name}".replace(".//", "/")}
    if Path(name).suffix.lower() in (".keras", ".h5", ".hdf5"):
        return {"use": "keras_file", "path": name}
    return {"use": name, "path": f"conf/backbone/{name}.yaml"}


def weights_file(path: str, key: str) -> Path:
    """Check a weights file named by the user.

    Raises:
        InputError: It does not exist, or is a git-lfs pointer.
    """
    from pipeline.errors import InputError

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{key} must be a file, got {path}: no such file")
    with file.open("rb") as opened:
        if opened.read(12) == b"version http":
            raise InputError(
                f"{key} must be weights, {path} is a git-lfs pointer: run git lfs pull"
            )
    return file
