"""Read and decode every image of a source on all cores.

images -> a row of the manifest for each, and its pixels or the reason why it has none.
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
from pipeline.data import image_file
from pipeline.data.decoding import Decoding
from pipeline.data.image_file import Decoded
from pipeline.data.manifest import Row
from pipeline.intake.sources import Sample

Judged = tuple[Row, Decoded | str]
"""An image's row of the manifest, and its pixels or the reason why it has none."""

_CHUNK, _THREADS = 64, 2
"""Images sent to a cluster worker at a time, and threads that decode them there."""


def judge(
    images: Iterable[Sample],
    size_px: int,
    how: Decoding,
    desc: str,
    cluster: Cluster | None = None,
    total: int | None = None,
) -> Iterator[Judged]:
    """Read and decode every image, in order.

    Yields:
        The image's row, without a split if the source assigns none, and the decoded image or the
        reason why it is unusable.
    """
    yield from tqdm(
        _on_a_cluster(images, size_px, how, cluster)
        if cluster and cluster.on
        else _here(images, size_px, how),
        desc=desc,
        total=total,
        unit="image",
        disable=None,
    )


def _here(images: Iterable[Sample], size_px: int, how: Decoding) -> Iterator[Judged]:
    # Threads suffice: decoding releases Python's lock, and nothing is copied between processes.
    workers = Parallel(n_jobs=-1, prefer="threads", return_as="generator", pre_dispatch="8*n_jobs")
    yield from workers(delayed(_judge)(image, size_px, how) for image in images)


def _on_a_cluster(
    images: Iterable[Sample], size_px: int, how: Decoding, cluster: Cluster
) -> Iterator[Judged]:
    judge_some = partial(_judge_all, size_px=size_px, how=how)
    parts = chunks(images, _CHUNK)
    results = pool.ordered(cluster, lambda: judge_some, parts, threads=_THREADS)
    for judged in results:
        yield from judged


def chunks(images: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield images in lists of at most `size`."""
    remaining = iter(images)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _judge_all(images: list[Sample], size_px: int, how: Decoding) -> list[Judged]:
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda image: _judge(image, size_px, how), images))


def _judge(image: Sample, size_px: int, how: Decoding) -> Judged:
    row = Row(image.path, image.label, image.split or "", "", 0, 0, "ok", image.extra)
    content = image_file.or_reason(image.read)
    if isinstance(content, str):
        return row, content
    row = replace(row, sha256=hashlib.sha256(content).hexdigest(), group=image.group)
    decoded = image_file.or_reason(lambda: image_file.decode(content, size_px, how))
    if isinstance(decoded, str):
        return row, decoded
    digest = hashlib.sha256(decoded.pixels.tobytes()).hexdigest()
    return replace(row, width=decoded.width, height=decoded.height, pixels=digest), decoded
