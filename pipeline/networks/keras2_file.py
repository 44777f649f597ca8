"""Models that Keras 2 wrote, as .h5 or .keras.

file of Keras 2 -> model. Thousands of public repositories hold such files.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.networks.keras2_config import translated

if TYPE_CHECKING:
    import keras


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


def load(path: Path, safe_mode: bool) -> keras.Model:
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
