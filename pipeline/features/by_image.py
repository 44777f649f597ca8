"""Outputs of a network for images that come and go: computed once, and kept by content.

digests of files + a network -> (N, D). `activations` keeps those of whole prepared datasets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.features.store import Key, Store
from pipeline.networks.model_file import Card
from pipeline.storage import workspace
from pipeline.storage.digests import file_sha256

_IMAGES = "images"
Floats = NDArray[np.float32]


def of_model(path: Path, card: Card) -> Key:
    """Return what outputs of a classifier depend on: (K + D,) probabilities, then features."""
    described = {"backbone": "classifier", "cut": "its features", "image_size": card.image_size}
    return {**described, "model": file_sha256(path), "processor": workspace.processor()}


def stored(cache: Store, network: Key, digests: Sequence[str]) -> dict[str, Floats]:
    """Read what is stored: digest -> (D,).

    Args:
        cache: The cache of activations.
        network: Everything that outputs depend on besides the image; `backbone`, `cut` and
            `image_size` describe it in lists of the cache.
        digests: Digests of the images' files.
    """
    wanted: set[str] = set(digests)
    outputs: dict[str, Floats] = {}
    for entry in cache.entries():
        listed = entry.key.get(_IMAGES, ())
        if {**network, _IMAGES: listed} == entry.key and not wanted.isdisjoint(listed):
            path = entry.folder / "activations.npy"
            rows = zip(listed, np.load(path), strict=True)
            outputs |= {digest: row for digest, row in rows if digest in wanted}
            os.utime(path)
    return outputs


def keep(
    cache: Store, network: Key, digests: Sequence[str], width: int, outputs: Iterator[Floats]
) -> Floats:
    """Store the outputs of N images.

    Args:
        cache: The cache of activations.
        network: As for `stored`.
        digests: N digests.
        width: D.
        outputs: Batches of (., D), N rows in all; not used if another process stored them.

    Returns:
        (N, D), memory-mapped.
    """
    return cache.put({**network, _IMAGES: list(digests)}, (width,), len(digests), outputs)
