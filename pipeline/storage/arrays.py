"""Arrays larger than memory: written row by row, read memory-mapped.

rows -> .npy. Uses plain writes: with a memory map, a full disk kills the process.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from pipeline.storage import digests


@contextmanager
def row_writer(
    path: Path, row_shape: tuple[int, ...], dtype: DTypeLike
) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Yield a function that appends rows, (n, *row_shape), to a .npy file of unknown length."""
    kind, count, file = np.dtype(dtype), 0, path.open("wb")

    def append(rows: NDArray[Any]) -> None:
        nonlocal count
        file.write(np.ascontiguousarray(rows, dtype=kind).data)
        count += len(rows)

    def write_header() -> None:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *row_shape)})

    try:
        write_header()
        yield append
    except BaseException:
        file.raw.close()  # buffered data is useless now, and may not fit on the disk
        raise
    # NumPy reserves room for the first axis to grow, so the header's length stays the same.
    file.seek(0)
    write_header()
    file.close()


def share(source: Path, target: Path) -> str:
    """Put a file's content in another place, sharing disk space where possible.

    Tries a clone, then a read-only hard link, then a copy; returns cloned, linked or copied.

    Args:
        source: Existing file that is no longer written to.
        target: Must not exist; may be on another file system.
    """
    if _clone(source, target):
        return "cloned"
    with suppress(OSError):  # another file system, or one without links
        os.link(source, target)
        target.chmod(0o444)
        return "linked"
    with target.open("wb") as file:
        for part in digests.parts(source, "copying"):
            file.write(part)
    return "copied"


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
