"""Model files that Keras 3 did not write: those of Keras 2, which are translated, and all others.

path -> model of a file of Keras 2; or the error that says what a file is and how to convert it.
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

_WANTED = "backbone.path must be a .keras or .h5 file of a whole model"
_KERAS_2_TO_H5 = (
    "pip install tf_keras, then python -c \"import tf_keras; tf_keras.models.load_model('{path}', "
    "compile=False).save('model.h5')\" makes one of it, if Keras saved it"
)


def refuse(path: Path) -> None:
    """Stop at what Keras cannot load as a model with layers.

    Args:
        path: Of a file or folder, which may be absent.

    Raises:
        InputError: It is of another kind; the message says how to convert it.
    """
    found = _folder(path) if path.is_dir() else _file(path) if path.is_file() else None
    if found:
        what, remedy = found
        raise InputError(f"{_WANTED}, {path} is {what}: {remedy}")


def _folder(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").is_file() or (path / "saved_model.pbtxt").is_file():
        return "a SavedModel folder", _KERAS_2_TO_H5.format(path=path)
    if (path / "model.json").is_file():
        return "a model of TensorFlow.js", (
            "pip install tensorflowjs, then tensorflowjs_converter --input_format=tfjs_layers_model"
            f" --output_format=keras {path / 'model.json'} model.h5"
        )
    return "a folder", "name the file in it"


def _file(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as opened:
        start = opened.read(16)
    if path.name in ("saved_model.pb", "saved_model.pbtxt"):
        return "part of a SavedModel folder", _KERAS_2_TO_H5.format(path=path.parent)
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "it cannot be trained; look for the model it was made of"
    if path.suffix == ".onnx":
        return "an ONNX model", "look for the same network in keras.applications or as .keras"
    if path.suffix in (".pt", ".pth", ".ckpt", ".safetensors", ".bin") or _is_pytorch(path):
        return "a PyTorch file", "look for the same network in keras.applications or as .keras"
    if path.suffix == ".pb":
        return "a frozen graph", "it cannot be trained; look for the model it was made of"
    if path.suffix == ".json":
        return "JSON, at most a model's config", "save the whole model with model.save"
    if _has_weights_alone(path):
        return "weights alone", (
            "build the network, load them into it and save it with model.save('model.keras'), or "
            "use them as backbone.weights of the network's own file in conf/backbone"
        )
    return None


def _is_pytorch(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/data.pkl") for name in archive.namelist())


def _has_weights_alone(path: Path) -> bool:
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "model_config" not in file.attrs


def written_by(path: Path) -> str:
    """The version of Keras that wrote a .h5 or .keras file; empty if it does not say."""
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
    """Load a file of Keras 2.

    Args:
        path: Of the file, which is left as it is.
        safe_mode: Whether code in it is refused.

    Raises:
        Untranslatable: It holds what has no like in Keras 3.
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
        if "model_config" in file.attrs:  # else Keras says what is missing
            root = translated(json.loads(file.attrs["model_config"]))
            found = {key: root[key] for key in ("class_name", "config")}
            file.attrs["model_config"] = json.dumps(found).encode()


def _translate_keras(path: Path, copy: Path) -> None:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps(translated(json.loads(content))).encode()
            target.writestr(name, content)
