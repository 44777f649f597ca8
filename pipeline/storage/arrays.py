"""Arrays larger than memory: written row by row, read memory-mapped.

rows -> .npy. Uses plain writes: with a memory map, a full disk kills the process.
"""

import os
import sys
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.storage import digests


class RowWriter:
    """Append rows to a .npy file whose length is known only at the end.

    Args:
        path: File to write.
        row_shape: Shape of one row.
        dtype: Type of the values.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._file = path.open("wb")
        self._row_shape = row_shape
        self._dtype = np.dtype(dtype)
        self._count = 0

    def __enter__(self) -> "RowWriter":
        self._write_header()
        return self

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows: (n, *row_shape)."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)
        self._count += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is None:
            # NumPy reserves room for the first axis to grow, so the header's length stays the same.
            self._file.seek(0)
            self._write_header()
            self._file.close()
        else:
            self._file.raw.close()  # buffered data is useless now, and may not fit on the disk

    def _write_header(self) -> None:
        shape = (self._count, *self._row_shape)
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class Shared(Enum):
    """Method by which a file's content was put in a second place."""

    cloned = "cloned"
    linked = "linked"
    copied = "copied"


def share(source: Path, target: Path) -> Shared:
    """Put a file's content in another place, sharing disk space where possible.

    Tries a clone, then a read-only hard link, then a copy.

    Args:
        source: Existing file that is no longer written to.
        target: Must not exist; may be on another file system.
    """
    if _clone(source, target):
        return Shared.cloned
    with suppress(OSError):  # another file system, or one without links
        os.link(source, target)
        target.chmod(0o444)
        return Shared.linked
    with target.open("wb") as file:
        for part in digests.parts(source, "copying"):
            file.write(part)
    return Shared.copied


_FICLONE = 0x40049409
"""Linux: let a file share another file's blocks (ioctl_ficlone(2))."""


def _clone(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        with source.open("rb") as content, target.open("wb") as file:
            fcntl.ioctl(file.fileno(), _FICLONE, content.fileno())
    except OSError:  # most file systems do not support it
        target.unlink(missing_ok=True)
        return False
    return True
