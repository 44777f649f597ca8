"""The forward pass on a cluster: the bytes that this machine alone would compute.

backbone's config + rows -> activations, batch by batch. Workers read the pictures themselves.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.cluster import pool
from pipeline.errors import InputError
from pipeline.networks import backbones, engines, runtime
from pipeline.storage import digests

if TYPE_CHECKING:
    from pipeline.features.activations import Source
    from pipeline.networks.forward import Floats


@dataclass(frozen=True)
class _Pass:
    """What a worker needs to know; it is pickled.

    Attributes:
        origin: Config, picture size and seed that the backbone was built with.
        cut: Where the pass ends.
        engine: Section `forward`.
        batch_size: Of Keras' passes.
        threads: To compute on.
        images: File of the pictures, as every node has it.
        shape: Of the pictures.
        images_sha256: Digest of the pictures.
        same: What must be as it is here for the bytes to be the same.
    """

    origin: tuple[Any, int, int]
    cut: str
    engine: engines.Config
    batch_size: int
    threads: int
    images: str
    shape: tuple[int, ...]
    images_sha256: str
    same: dict[str, str]


def batches(source: Source, cut: str, rows: NDArray[np.int64], desc: str) -> Iterator[Floats]:
    """Yield the activations of some pictures at a cut, with a progress bar.

    Args:
        source: What they are computed from.
        cut: A cut point, or the last layer.
        rows: (M,) which pictures.
        desc: Name of the progress bar.

    Raises:
        InputError: A node lacks the pictures, or would compute other bytes.
    """
    assert source.origin is not None, "a source for a cluster says how its backbone is built"
    size = source.batch_size
    what = _Pass(
        source.origin,
        cut,
        source.engine,
        size,
        source.threads,
        os.path.relpath(source.images.filename),
        tuple(source.images.shape),
        source.images_sha256,
        _identity(source.backbone_sha256, source.engine),
    )
    tasks = [rows[start : start + size] for start in range(0, len(rows), size)]
    found = pool.ordered(source.cluster, partial(_worker, what), tasks, threads=source.threads)
    with tqdm(total=len(rows), desc=desc, unit="picture", disable=None) as bar:
        for batch in found:
            yield batch
            bar.update(len(batch))


def _identity(backbone_sha256: str, engine: engines.Config) -> dict[str, str]:
    return {
        "code": digests.code_sha256(),
        "backbone": backbone_sha256,
        **runtime.versions(),
        **engines.described(engine),
    }


def _worker(what: _Pass) -> Callable[[NDArray[np.int64]], Floats]:
    """In a worker: the function from rows to activations."""
    from pipeline.features.activations import Source

    config, size_px, seed = what.origin
    host, images = socket.gethostname(), _images(what)
    runtime.configure(seed, what.threads)
    built = backbones.build(config, size_px, seed)
    own = _identity(built.sha256, what.engine)
    for name, expected in what.same.items():
        if own[name] != expected:
            raise InputError(
                f"nodes of a cluster must compute the same bytes, {host} has another {name} "
                f"({own[name]}, here {expected}): use nodes of one kind, with one environment"
            )
    source = Source(
        built.model, images, what.batch_size, what.threads, built.sha256, "", what.engine
    )
    forward = source.forward(what.cut)
    return lambda rows: forward.all(images, rows)


def _images(what: _Pass) -> NDArray[np.uint8]:
    """The pictures as this node has them: prepared ones, or views, whose path is their digest."""
    path = Path(what.images)
    images = np.load(path, mmap_mode="r") if path.exists() else np.zeros(0, np.uint8)
    summary = path.with_name("summary.json")
    known = json.loads(summary.read_text())["images_sha256"] if summary.exists() else None
    if images.shape != what.shape or known not in (None, what.images_sha256):
        raise InputError(
            f"every node must have the {path} of this one, {socket.gethostname()} has not: share "
            "the project's folder, or run dvc pull there"
        )
    return images
