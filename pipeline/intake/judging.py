"""Read and decode every picture of a source on all cores.

pictures -> a row of the manifest each, and its pixels or the reason why it has none.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice

from joblib import Parallel, delayed
from tqdm import tqdm

from pipeline.cluster import pool
from pipeline.cluster.connection import Config as Cluster
from pipeline.data import images
from pipeline.data.decoding import Decoding
from pipeline.data.images import Decoded
from pipeline.data.manifest import Row
from pipeline.intake.sources import Picture

Judged = tuple[Row, Decoded | str]
"""A picture's row of the manifest, and its pixels or the reason why it has none."""

_CHUNK, _THREADS = 64, 2
"""Pictures that a worker of a cluster is sent the names of, and decodes at a time."""


def judge(
    pictures: Iterable[Picture],
    size_px: int,
    how: Decoding,
    desc: str,
    cluster: Cluster | None = None,
) -> Iterator[Judged]:
    """Judge every picture, in order.

    Args:
        pictures: Of a source.
        size_px: Side of the square that they are brought to.
        how: How they are decoded.
        desc: Name of the progress bar.
        cluster: Section `cluster`; None for this machine alone.

    Yields:
        The picture's row, without a split if its source gives none, and the picture, or the
        reason why it is bad.
    """
    yield from tqdm(
        _on_a_cluster(pictures, size_px, how, cluster)
        if cluster and cluster.on
        else _here(pictures, size_px, how),
        desc=desc,
        unit="picture",
        disable=None,
    )


def _here(pictures: Iterable[Picture], size_px: int, how: Decoding) -> Iterator[Judged]:
    # Threads: decoding happens outside Python's lock, and nothing is copied between processes.
    workers = Parallel(n_jobs=-1, prefer="threads", return_as="generator", pre_dispatch="8*n_jobs")
    yield from workers(delayed(_judge)(picture, size_px, how) for picture in pictures)


def _on_a_cluster(
    pictures: Iterable[Picture], size_px: int, how: Decoding, cluster: Cluster
) -> Iterator[Judged]:
    judge_some = partial(_judge_all, size_px=size_px, how=how)
    found = pool.ordered(cluster, lambda: judge_some, _chunks(pictures), threads=_THREADS)
    for judged in found:
        yield from judged


def _chunks(pictures: Iterable[Picture]) -> Iterator[list[Picture]]:
    remaining = iter(pictures)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _judge_all(pictures: list[Picture], size_px: int, how: Decoding) -> list[Judged]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda picture: _judge(picture, size_px, how), pictures))


def _judge(picture: Picture, size_px: int, how: Decoding) -> Judged:
    row = Row(picture.path, picture.label, picture.split or "", "", 0, 0, "ok", picture.extra)
    content = images.or_reason(picture.read)
    if isinstance(content, str):
        return row, content
    row = replace(row, sha256=hashlib.sha256(content).hexdigest(), group=picture.group)
    decoded = images.or_reason(lambda: images.decode(content, size_px, how))
    if isinstance(decoded, str):
        return row, decoded
    digest = hashlib.sha256(decoded.pixels.tobytes()).hexdigest()
    return replace(row, width=decoded.width, height=decoded.height, pixels=digest), decoded
