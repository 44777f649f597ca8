"""Pre-trained networks: one module a kind.

A kind is a module with a `Config` dataclass, whose `kind` is the module's name,
and `build(config, image_size) -> Backbone`. A new kind is one such module and one
YAML in conf/backbone/; nothing else changes. Modules import Keras inside their
functions, so that reading a config stays fast.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A backbone and where its weights came from.

    Attributes:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, D) features, pooled.
            Preprocessing is its first layers, the network itself follows.
        name: Of the network, such as `MobileNetV2`.
    """

    model: keras.Model
    name: str

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights' values, in order: the same whichever file held them."""
        digest = hashlib.sha256()
        for variable in self.model.variables:
            digest.update(str((variable.shape, variable.dtype)).encode())
            digest.update(variable.numpy().tobytes())
        return digest.hexdigest()


def build(config: Any, image_size: int, seed: int) -> Backbone:
    """Build a backbone.

    Args:
        config: The `Config` of one of the modules here.
        image_size: Side of the pictures in px.
        seed: Of the initial weights where `weights` is null.

    Raises:
        InputError: Weights that cannot be found, or a network and size that do not fit.
    """
    import keras

    module = importlib.import_module(f"{__name__}.{config.kind}")
    keras.utils.set_random_seed(seed)
    backbone: Backbone = module.build(config, image_size)
    return backbone


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
