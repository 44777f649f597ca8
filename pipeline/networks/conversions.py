"""Converted networks on disk, each named after its content: nothing is converted twice.

model -> the files of its conversion, shared by all runs, trials and processes; the least recently
used are removed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.networks import runtime
from pipeline.networks.forward import Files
from pipeline.storage import digests, outputs, workspace

if TYPE_CHECKING:
    import keras

_KEPT = 20


def name(model: keras.Model, engine: str) -> str | None:
    """Name a conversion after layers, weights and `engine`; None if layers cannot be described."""
    try:
        layers = model.to_json()
    except (NotImplementedError, TypeError, ValueError):
        return None
    libraries = f"{engine} {sorted(runtime.versions().items())} {digests.code_sha256()}"
    content = hashlib.sha256(f"{libraries} {layers}".encode())
    for variable in model.variables:
        content.update(np.ascontiguousarray(variable.numpy()).data)
    return content.hexdigest()[:32]


def read(name: str) -> Files | None:
    """Return the files of a conversion, or None."""
    folder = _root() / name
    try:
        os.utime(folder)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    except OSError:  # not there, or removed at this moment
        return None


def keep(name: str, files: Files) -> None:
    """Store the files of a conversion."""
    root = _root()
    with outputs.locked(root):
        with outputs.replacing(root / name) as aside:
            for file, content in files.items():
                (aside / file).write_bytes(content)
        folders = [path for path in root.iterdir() if path.name[0] != "."]
        for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            # Renamed first: a reader gets all files, or none.
            shutil.rmtree(old.rename(root / f".{old.name}.old"), ignore_errors=True)


def _root() -> Path:
    return workspace.root() / ".work" / "converted"
