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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import augmentation, outputs, workspace
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

    Attributes:
        hits: How many activations were asked for and there.
        misses: How many were asked for and had to be computed.
    """

    def __init__(self, config: Config, root: Path | None = None) -> None:
        self.root = root or workspace.root() / ".work" / "activations"
        self.max_bytes = int(config.max_gb * 1e9)
        self.hits = self.misses = 0

    def get(self, key: Key) -> NDArray[Any] | None:
        """The stored array, memory-mapped, or None."""
        path = self._folder(key) / "activations.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r")
            os.utime(path)
        except FileNotFoundError:
            return None
        return array

    def put(
        self,
        key: Key,
        row_shape: tuple[int, ...],
        count: int,
        batches: Iterator[NDArray[Any]],
        dtype: str = "float32",
    ) -> NDArray[Any]:
        """Store an array, unless another process has done so by now.

        Args:
            key: Everything it depends on.
            row_shape: Of one row.
            count: How many rows will come: what must go is removed before.
            batches: The rows; not touched if the array is there.
            dtype: What the rows are stored as.

        Returns:
            (count, *row_shape), memory-mapped.
        """
        folder = self._folder(key)
        with outputs.locked(folder):
            stored = self.get(key)
            if stored is None:
                self._make_room(np.dtype(dtype).itemsize * count * int(np.prod(row_shape)))
                with outputs.replacing(folder) as aside:
                    with RowWriter(aside / "activations.npy", row_shape, np.dtype(dtype)) as rows:
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

    def key(self, cut: str, rows: NDArray[np.int64], precision: str = "float32") -> Key:
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
            "precision": precision,
            "rows": _digest(rows),
            "tensorflow": tf.version.VERSION,
            "threads": self.threads,
        }


def below(
    store: Store, source: Source, cut: str, rows: NDArray[np.int64], precision: str = "float32"
) -> NDArray[Any]:
    """The activations of some pictures at a cut, computed only if the store has them not.

    Args:
        store: Where they are kept.
        source: What they are computed from.
        cut: A cut point of the backbone.
        rows: (M,) which pictures.
        precision: What they are kept as: float32 or float16.

    Returns:
        (M, h, w, C), memory-mapped.
    """
    from pipeline import cuts
    from pipeline.inference import Forward

    stored = store.get(source.key(cut, rows, precision))
    if stored is not None:
        store.hits += 1
        return stored
    store.misses += 1
    part, start, indices = source.model, source.images, rows
    points = cuts.cut_points(source.model)
    # From float32 alone: what is computed must not depend on what happens to be stored.
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
    key = source.key(cut, rows, precision)
    return store.put(key, forward.output_shape, len(rows), batches, precision)


def views(
    store: Store,
    source: Source,
    rows: NDArray[np.int64],
    augment: augmentation.Config,
    seed: int,
) -> list[Source]:
    """Sources of the augmented views of some pictures; view 0, the picture itself, is not one.

    Args:
        store: Where the views are kept, too.
        source: Of the pictures themselves.
        rows: (M,) which of them.
        augment: Section `augment`.
        seed: Of the views.

    Returns:
        A source of M pictures for each view from 1 on.
    """
    import keras
    import tensorflow as tf

    made = []
    for number in range(1, augment.count):
        depends = f"{source.images_sha256} {_digest(rows)} {augment.digest(seed, number)}"
        name = hashlib.sha256(depends.encode()).hexdigest()
        key = {
            "backbone": "pictures",
            "cut": f"view {number}",
            "images_sha256": name,
            "image_size": int(source.images.shape[1]),
            "keras": keras.version(),
            "precision": "uint8",
            "tensorflow": tf.version.VERSION,
        }
        shape = tuple(source.images.shape[1:])
        drawn = _drawn(source.images, rows, augment, seed, number)
        pictures = store.put(key, shape, len(rows), drawn, "uint8")
        made.append(replace(source, images=pictures, images_sha256=name))
    return made


def _drawn(
    images: Any, rows: NDArray[np.int64], augment: augmentation.Config, seed: int, number: int
) -> Iterator[NDArray[Any]]:
    """A view's batches; nothing is built before the first is asked for."""
    yield from augmentation.Augmenter(augment).view(images, rows, seed, number)


def _digest(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
