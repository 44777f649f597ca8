"""Models that Keras 2 wrote as .h5, in the words of Keras 3.

file of Keras 2 -> model. Thousands of public repositories hold such files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

_MODELS = {"Functional", "Sequential", "Model"}


def written_by(path: Path) -> str:
    """The version of Keras that wrote a .h5 file; empty if it does not say."""
    import h5py

    if not h5py.is_hdf5(path):
        return ""
    with h5py.File(path) as file:
        version = file.attrs.get("keras_version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def load(path: Path, safe_mode: bool) -> keras.Model:
    """Load a .h5 file of Keras 2.

    Args:
        path: Of the file, which is left as it is.
        safe_mode: Whether code in it is refused.
    """
    import h5py
    import keras

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            file.attrs["model_config"] = json.dumps(_translated(config)).encode()
        return keras.saving.load_model(copy, compile=False, safe_mode=safe_mode)


def _translated(value: Any) -> Any:
    """A config without what Keras 3 does not know."""
    if isinstance(value, list):
        return [_translated(one) for one in value]
    if not isinstance(value, dict):
        return value
    translated = {key: _translated(inner) for key, inner in value.items()}
    if translated.get("class_name") == "DepthwiseConv2D":
        translated["config"].pop("groups", None)
    layers = translated.get("layers")
    if isinstance(layers, list):
        inside = {one.get("name") for one in layers if one.get("class_name") in _MODELS}
        for layer in layers:
            layer["inbound_nodes"] = _renumbered(layer.get("inbound_nodes", []), inside)
    return translated


def _renumbered(nodes: Any, inside: set[Any]) -> Any:
    """Calls of models inside count from 0: Keras 2 counted a model's own making as one."""
    if isinstance(nodes, list) and len(nodes) > 2 and nodes[0] in inside:
        return [nodes[0], max(0, nodes[1] - 1), *nodes[2:]]
    if isinstance(nodes, list):
        return [_renumbered(one, inside) for one in nodes]
    return nodes
