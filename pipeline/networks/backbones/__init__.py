"""Pre-trained networks: one module a kind.

A kind is a module with a `Config`, a `BackboneConfig` whose `kind` is the module's name, and
`build(config, image_size) -> Backbone`; `sides(config)` if it does not take images of any size; and
`scalings(config, image_size)` if it has a setting `scale`. A new kind is one such module and one
YAML in conf/backbone/; nothing else changes (docs/extending.md). Modules
import Keras inside their functions, so that reading a config stays fast.
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
    """Section `backbone`: what every kind is told; each kind adds its own settings."""

    kind: str = "???"
    use: str = setting(REQUIRED, "The pre-trained network.", group="backbone")
    path: str = setting(
        REQUIRED,
        "The weights or model file, which DVC watches for changes; for networks without one, "
        "their file in conf/backbone/.",
    )

    def shaping(self) -> dict[str, Any]:
        """The settings that shape the network, without where its files are."""
        return {k: v for k, v in asdict(self).items() if k not in ("use", "path")}

    @property
    def takes_folders(self) -> bool:
        """Whether that file may be a folder."""
        return False

    def file(self) -> tuple[str, Path] | None:
        """The setting that names a file without which there is no network, and the file."""
        return None


@dataclass(frozen=True)
class Backbone:
    """A backbone and where its weights came from.

    Attributes:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, D) features, pooled.
            Preprocessing is its first layers, the network itself follows.
        name: Of the network, such as `MobileNetV2`.
        taken: What of a model the features are, in words, where that had to be found out.
    """

    model: keras.Model
    name: str
    taken: str = ""

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights' values, in order: the same whichever file held them."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            digest.update(str((variable.shape, variable.dtype)).encode())
            digest.update(variable.numpy().tobytes())
        return digest.hexdigest()

    @property
    def sha256(self) -> str:
        """Digest of all that shapes the features: the weights and the graph with its constants."""
        from pipeline.networks import graph

        parts = f"{self.weights_sha256} {graph.digest(self.model)}"
        return hashlib.sha256(parts.encode()).hexdigest()


def build(config: BackboneConfig, image_size: int, seed: int) -> Backbone:
    """Build a backbone.

    Args:
        config: The `Config` of one of the modules here.
        image_size: Side of the images in px.
        seed: Of the initial weights where `weights` is null.

    Raises:
        InputError: Weights that cannot be found, or a network and size that do not fit.
    """
    import keras

    module = importlib.import_module(f"{__name__}.{config.kind}")
    keras.utils.set_random_seed(seed)
    backbone: Backbone = module.build(config, image_size)
    return backbone


def sides(config: BackboneConfig) -> tuple[int, int] | None:
    """Smallest and largest side in px of the images that a network takes; None for any.

    Args:
        config: The `Config` of one of the modules here.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    limits: tuple[int, int] | None = module.sides(config) if hasattr(module, "sides") else None
    return limits


def scalings(config: BackboneConfig, image_size: int) -> tuple[tuple[str, ...], str]:
    """The values of `backbone.scale` to try, where nothing says how a network wants its images.

    Args:
        config: The `Config` of one of the modules here.
        image_size: Side of the images in px.

    Returns:
        None to try if that is known; and if the model itself says it, how.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    if getattr(config, "scale", None) != AUTO:
        return (), ""
    found: tuple[tuple[str, ...], str] = module.scalings(config, image_size)
    return found


def without_weights(config: BackboneConfig) -> BackboneConfig:
    """The same network with random weights, where only its layers matter and that is possible."""
    changes: dict[str, Any] = {"weights": None} if hasattr(config, "weights") else {}
    return replace(config, **changes)


def section(name: str) -> dict[str, str]:
    """What section `backbone` says to choose a file of conf/backbone, or a model on disk."""
    if (Path(name) / "config.json").is_file():
        return {"use": "keras_hub", "path": name, "preset": f"./{name}".replace(".//", "/")}
    if Path(name).suffix.lower() in (".keras", ".h5", ".hdf5"):
        return {"use": "keras_file", "path": name}
    return {"use": name, "path": f"conf/backbone/{name}.yaml"}


def weights_file(path: str, key: str) -> Path:
    """A weights file that the user names.

    Raises:
        InputError: It does not exist, or is a git-lfs pointer.
    """
    from pipeline.errors import InputError

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{key} must be a file, got {path}: no such file")
    with file.open("rb") as opened:
        if opened.read(12) == b"version http":
            raise InputError(f"{key} must be weights, {path} is a git-lfs pointer: git lfs pull")
    return file
