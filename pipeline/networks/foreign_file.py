"""Model files not written by Keras 3: Keras 2 files, which are translated, and others.

path -> model of a Keras 2 file; or an error that says what a file is and how to convert it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.networks.keras2_config import translated

if TYPE_CHECKING:
    import keras

_WANTED = "backbone.path must be a .keras or .h5 file with a whole model"
_KERAS_2_TO_H5 = (
    "pip install tf_keras, then python -c \"import tf_keras; tf_keras.models.load_model('{path}', "
    "compile=False).save('model.h5')\" converts it, if Keras saved it"
)


def refuse(path: Path) -> None:
    """Stop at a file or folder, if it exists, that Keras cannot load as a model with layers.

    Raises:
        InputError: It is of another kind; the message says how to convert it.
    """
    kind = _folder(path) if path.is_dir() else _file(path) if path.is_file() else None
    if kind:
        what, remedy = kind
        raise InputError(f"{_WANTED}, {path} is {what}: {remedy}")


def _folder(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return "a SavedModel folder", _KERAS_2_TO_H5.format(path=path)
    if (path / "model.json").is_file():
        return "a TensorFlow.js model", (
            "pip install tensorflowjs, then tensorflowjs_converter --input_format=tfjs_layers_model"
            f" --output_format=keras {path / 'model.json'} model.h5"
        )
    return "a folder", "name the file inside it"


def _file(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as opened:
        start = opened.read(16)
    if path.name in ("saved_model.pb", "saved_model.pbtxt"):
        return "part of a SavedModel folder", _KERAS_2_TO_H5.format(path=path.parent)
    if start[4:8] == b"TFL3":
        return (
            "a TensorFlow Lite model",
            "it cannot be trained; use the model it was converted from",
        )
    if path.suffix == ".onnx":
        return "an ONNX model", "look for the same network in keras.applications or as .keras"
    if path.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin") or _is_pytorch(path):
        return "a PyTorch file", "look for the same network in keras.applications or as .keras"
    if path.suffix == ".pb":
        return "a frozen graph", "it cannot be trained; use the model it was converted from"
    if path.suffix == ".json":
        return "JSON, at most a model's config", "save the whole model with model.save"
    if _has_only_weights(path):
        return "a weights file", (
            "build the network, load the weights and save it with model.save('model.keras'), or "
            "use the file as backbone.weights of that network's file in conf/backbone"
        )
    return None


def _is_pytorch(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _has_only_weights(path: Path) -> bool:
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "model_config" not in file.attrs


def written_by(path: Path) -> str:
    """Return the version of Keras that wrote a .h5 or .keras file; empty if not recorded."""
    import h5py

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if "metadata.json" not in archive.namelist():
                return ""
            return str(json.loads(archive.read("metadata.json")).get("keras_version", ""))
    if not h5py.is_hdf5(path):
        return ""
    with h5py.File(path) as file:
        version = file.attrs.get("keras_version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def load_keras2(path: Path, safe_mode: bool) -> keras.Model:
    """Load a Keras 2 file.

    Args:
        path: The file, which is not changed.
        safe_mode: Reject code in it.

    Raises:
        Untranslatable: It contains something without a counterpart in Keras 3.
    """
    import keras

    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        if zipfile.is_zipfile(path):
            _translate_keras(path, copy)
        else:
            _translate_h5(path, copy)
        return keras.saving.load_model(copy, compile=False, safe_mode=safe_mode)


def _translate_h5(path: Path, copy: Path) -> None:
    import h5py

    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        if "model_config" in file.attrs:  # otherwise Keras says what is missing
            root = translated(json.loads(file.attrs["model_config"]))
            translated_root = {key: root[key] for key in ("class_name", "config")}
            file.attrs["model_config"] = json.dumps(translated_root).encode()


def _translate_keras(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps(translated(json.loads(content))).encode()
            target.writestr(name, content)
