"""Run the forward pass on a cluster, with the same bytes as on one machine.

backbone's config + rows -> activations, batch by batch. Workers read the images themselves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.cluster import pool
from pipeline.errors import InputError
from pipeline.features.source import FrozenPart, Source
from pipeline.networks import engines, runtime
from pipeline.networks.forward import Floats
from pipeline.storage import digests, tables


def batches(source: Source, cut: str, rows: NDArray[np.int64], desc: str) -> Iterator[Floats]:
    """Yield the activations of some images at a cut, with a progress bar.

    Args:
        source: Network and images.
        cut: A cut point, or the last layer.
        rows: (M,) rows of the images.
        desc: Name of the progress bar.

    Raises:
        InputError: A node lacks the images, or would compute other bytes.
    """
    frozen, size = source.frozen, source.frozen.batch_size
    path, shape = os.path.relpath(source.images.filename), tuple(source.images.shape)
    same = _identity(source.backbone_sha256, frozen.engine)
    make = partial(_worker, frozen, cut, path, shape, source.images_sha256, same)
    tasks = [rows[start : start + size] for start in range(0, len(rows), size)]
    results = pool.ordered(frozen.cluster, make, tasks, threads=frozen.threads)
    with tqdm(total=len(rows), desc=desc, unit="image", disable=None) as bar:
        for batch in results:
            yield batch
            bar.update(len(batch))


def _identity(backbone_sha256: str, engine: engines.Config) -> dict[str, str]:
    return {
        "code": digests.code_sha256(),
        "backbone": backbone_sha256,
        **runtime.versions(),
        **engines.described(engine),
    }


def _worker(
    frozen: FrozenPart,
    cut: str,
    path: str,
    shape: tuple[int, ...],
    images_sha256: str,
    same: dict[str, str],
) -> Callable[[NDArray[np.int64]], Floats]:
    """Build the function from rows to activations, in a worker, which must compute the `same`."""
    host, images = socket.gethostname(), _images(Path(path), shape, images_sha256)
    runtime.configure(frozen.seed, frozen.threads)
    built = frozen.build(shape[1])
    own = _identity(built.sha256, frozen.engine)
    for name, expected in same.items():
        if own[name] != expected:
            raise InputError(
                f"cluster nodes must compute the same bytes, but {host} has another {name} "
                f"({own[name]}, here {expected}): use nodes of one type, with the same environment"
            )
    forward = Source(frozen, built.model, built.sha256, images, "").forward(cut)
    return lambda rows: forward.all(images, rows)


def _images(path: Path, shape: tuple[int, ...], images_sha256: str) -> NDArray[np.uint8]:
    """Open the images on this node: prepared ones, or views, whose path is their digest."""
    images = np.load(path, mmap_mode="r") if path.exists() else np.zeros(0, np.uint8)
    summary = path.with_name("summary.json")
    digest = tables.read_json(summary)["images_sha256"] if summary.exists() else None
    if images.shape != shape or digest not in (None, images_sha256):
        raise InputError(
            f"{path} on {socket.gethostname()} differs from the one here: share the project's "
            "folder, or run dvc pull there"
        )
    return images
