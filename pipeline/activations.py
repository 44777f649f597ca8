"""Activations of the frozen part, computed once, kept by content and shared by all runs.

lower(images) -> memory-mapped array. A deeper cut's are computed from the deepest
stored shallower one's, not from the pictures. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import outputs, workspace
from pipeline.arrays import RowWriter

Key = dict[str, Any]


@dataclass
class Config:
    """Section `activations`.

    Attributes:
        max_gb: What the store may take; the least recently used go first.
    """

    max_gb: float = 20.0


@dataclass(frozen=True)
class Entry:
    """One array of the store.

    Attributes:
        folder: Where it lies.
        key: Everything it depends on.
        size: In bytes.
        used: When it was last read, in seconds since 1970.
    """

    folder: Path
    key: Key
    size: int
    used: float


class Store:
    """A folder of arrays, each named after everything that it depends on.

    Any number of processes may read and write it at once: an entry is written
    aside under a lock and renamed last. On disk an entry that is removed while it is
    memory-mapped stays readable for who has it.

    Args:
        config: Section `activations`.
        root: The folder; in the project's work folder if None.
    """

    def __init__(self, config: Config, root: Path | None = None) -> None:
        self.root = root or workspace.root() / ".work" / "activations"
        self.max_bytes = int(config.max_gb * 1e9)

    def get(self, key: Key) -> NDArray[np.float32] | None:
        """The stored array, memory-mapped, or None."""
        path = self._folder(key) / "activations.npy"
        try:
            array: NDArray[np.float32] = np.load(path, mmap_mode="r")
            os.utime(path)
        except FileNotFoundError:
            return None
        return array

    def put(
        self, key: Key, row_shape: tuple[int, ...], count: int, batches: Iterator[NDArray[Any]]
    ) -> NDArray[np.float32]:
        """Store an array, unless another process has done so by now.

        Args:
            key: Everything it depends on.
            row_shape: Of one row.
            count: How many rows will come: what must go is removed before.
            batches: The rows; not touched if the array is there.

        Returns:
            (count, *row_shape) float32, memory-mapped.
        """
        folder = self._folder(key)
        with outputs.locked(folder):
            stored = self.get(key)
            if stored is None:
                self._make_room(4 * count * int(np.prod(row_shape)))
                with outputs.replacing(folder) as aside:
                    with RowWriter(aside / "activations.npy", row_shape, np.float32) as rows:
                        for batch in batches:
                            rows.append(batch)
                    outputs.write_json(aside / "key.json", key)
                stored = self.get(key)
        assert stored is not None
        return stored

    def entries(self) -> list[Entry]:
        """What is stored, least recently used first."""
        found = []
        for path in self.root.glob("[0-9a-f]*/activations.npy"):
            try:
                state = path.stat()
                key = json.loads((path.parent / "key.json").read_text(encoding="utf-8"))
            except FileNotFoundError:  # removed meanwhile by another process
                continue
            found.append(Entry(path.parent, key, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def clear(self) -> None:
        """Remove everything."""
        for entry in self.entries():
            self._remove(entry)

    def _make_room(self, wanted: int) -> None:
        entries = self.entries()
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if total + wanted <= self.max_bytes:
                break
            self._remove(entry)
            total -= entry.size

    def _remove(self, entry: Entry) -> None:
        shutil.rmtree(entry.folder, ignore_errors=True)
        (self.root / f".{entry.folder.name}.lock").unlink(missing_ok=True)

    def _folder(self, key: Key) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self.root / hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Source:
    """What activations are computed from, beside the cut.

    Attributes:
        model: The backbone: (B, H, W, 3) -> (B, D).
        images: (N, H, W, 3) uint8.
        batch_size: Pictures of a forward pass.
        threads: Of TensorFlow.
        backbone_sha256: Digest of the backbone's weights.
        images_sha256: Digest of the pictures.
    """

    model: Any
    images: Any
    batch_size: int
    threads: int
    backbone_sha256: str
    images_sha256: str

    def key(self, cut: str, rows: NDArray[np.int64]) -> Key:
        """Everything that the activations of some pictures at a cut depend on."""
        import keras
        import tensorflow as tf

        return {
            "backbone": self.model.name,
            "backbone_sha256": self.backbone_sha256,
            "batch_size": self.batch_size,
            "cut": cut,
            "images_sha256": self.images_sha256,
            "image_size": int(self.images.shape[1]),
            "keras": keras.version(),
            "precision": "float32",
            "rows": hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest(),
            "tensorflow": tf.version.VERSION,
            "threads": self.threads,
        }


def below(store: Store, source: Source, cut: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The activations of some pictures at a cut, computed only if the store has them not.

    Args:
        store: Where they are kept.
        source: What they are computed from.
        cut: A cut point of the backbone.
        rows: (M,) which pictures.

    Returns:
        (M, h, w, C) float32, memory-mapped.
    """
    from pipeline import cuts
    from pipeline.inference import Forward

    stored = store.get(source.key(cut, rows))
    if stored is not None:
        return stored
    part, start, indices = source.model, source.images, rows
    points = cuts.cut_points(source.model)
    for shallower in reversed(points[: points.index(cut)] if cut in points else points):
        found = store.get(source.key(shallower, rows))
        if found is not None:
            _, part = cuts.split(source.model, shallower)
            start, indices = found, np.arange(len(rows))
            break
    if cut in points:
        part, _ = cuts.split(part, cut)
    forward = Forward(part, source.batch_size)
    batches = forward.batches(start, indices, f"activations at {cut}")
    return store.put(source.key(cut, rows), forward.output_shape, len(rows), batches)
