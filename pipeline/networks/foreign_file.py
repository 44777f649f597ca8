"""Model files that are not Keras': what they are, and how to get one from them.

path -> nothing, or the error that says so. Looks at names and first bytes; loads nothing.
"""

import zipfile
from pathlib import Path

from pipeline.errors import InputError

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
