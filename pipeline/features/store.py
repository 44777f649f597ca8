"""A cache of arrays on disk, each named after everything that it depends on.

Shared by all runs and processes, bounded in size: the least recently used arrays are removed first.
Independent of networks.
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

from pipeline.errors import InputError
from pipeline.settings import setting
from pipeline.storage import outputs, tables, workspace
from pipeline.storage.arrays import row_writer

Key = dict[str, Any]


@dataclass
class Config:
    """Section `activations`."""

    max_gb: float = setting(
        20.0,
        "Disk space for cached activations; the least recently used are removed first.",
        above=0,
    )


@dataclass(frozen=True)
class Entry:
    """One array of the cache.

    Attributes:
        folder: Its folder.
        key: Everything it depends on.
        size: Size in bytes.
        used: Time of the last access, in seconds since 1970.
    """

    folder: Path
    key: Key
    size: int
    used: float


class Store:
    """A folder of arrays, each named after everything that it depends on.

    Any number of processes can read and write at the same time: an entry is written aside under a
    lock and renamed last. A removed entry stays readable for processes that already opened it.

    Args:
        config: Section `activations`.
        root: The folder; in the project's work folder if None.

    Attributes:
        hits: Number of cache hits.
        misses: Number of cache misses.
    """

    def __init__(self, config: Config, root: Path | None = None) -> None:
        self.root = root or workspace.root() / ".work" / "activations"
        self.max_bytes = int(config.max_gb * 1e9)
        self.hits = self.misses = 0

    def get(self, key: Key) -> NDArray[Any] | None:
        """Return a cached array, memory-mapped, or None."""
        path = self.place(key)
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
        """Store an array, unless another process has done so meanwhile.

        Args:
            key: Everything it depends on.
            row_shape: Shape of one row.
            count: Number of rows; space is freed in advance.
            batches: The rows; not used if the array exists.
            dtype: Storage type of the rows.

        Returns:
            (count, *row_shape), memory-mapped.

        Raises:
            InputError: It is larger than the cache may be.
        """
        folder = self._folder(key)
        wanted = np.dtype(dtype).itemsize * count * int(np.prod(row_shape))
        if wanted > self.max_bytes:
            raise InputError(
                f"activations.max_gb={self.max_bytes / 1e9:g} is too small for {count:,} images at "
                f"{key.get('cut')}, {wanted / 1e9:.3g} GB: raise it"
            )
        with outputs.locked(folder):
            stored = self.get(key)
            if stored is None:
                self._make_room(wanted)
                with outputs.replacing(folder) as aside:
                    with row_writer(aside / "activations.npy", row_shape, dtype) as append:
                        for batch in batches:
                            append(batch)
                    tables.write_json(aside / "key.json", key)
                stored = self.get(key)
        assert stored is not None
        return stored

    def place(self, key: Key) -> Path:
        """Return the file of a cached array."""
        return self._folder(key) / "activations.npy"

    def entries(self) -> list[Entry]:
        """List the cached arrays, least recently used first."""
        entries = []
        for path in self.root.glob("[0-9a-f]*/activations.npy"):
            try:
                state = path.stat()
                key = json.loads((path.parent / "key.json").read_text(encoding="utf-8"))
            except FileNotFoundError:  # removed meanwhile by another process
                continue
            entries.append(Entry(path.parent, key, state.st_size, state.st_mtime))
        return sorted(entries, key=lambda entry: entry.used)

    def clear(self) -> None:
        """Remove all arrays."""
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
