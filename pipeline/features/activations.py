"""Activations of the frozen part, computed once, kept by content and shared by all runs.

lower(images) -> memory-mapped array. A deeper cut's are computed from the deepest
stored shallower one's, not from the pictures. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features import augmentation
from pipeline.features.store import Key, Store
from pipeline.networks import runtime


@dataclass(frozen=True)
class Source:
    """What activations are computed from, beside the cut.

    Attributes:
        model: The backbone: (B, H, W, 3) -> (B, D).
        images: (N, H, W, 3) uint8.
        batch_size: Pictures of a forward pass.
        threads: Of TensorFlow.
        backbone_sha256: Digest of the backbone, `Backbone.sha256`.
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
        return {
            "backbone": self.model.name,
            "backbone_sha256": self.backbone_sha256,
            "batch_size": self.batch_size,
            "cut": cut,
            "images_sha256": self.images_sha256,
            "image_size": int(self.images.shape[1]),
            "precision": precision,
            "rows": _digest(rows),
            **runtime.versions(),
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
    from pipeline.features import cuts
    from pipeline.networks.forward import Forward

    stored = store.get(source.key(cut, rows, precision))
    if stored is not None:
        store.hits += 1
        return stored
    store.misses += 1
    part, start, indices = source.model, source.images, rows
    points = cuts.cut_points(source.model)
    # From float32 alone: what is computed must not depend on what happens to be stored.
    for shallower in reversed(points[: points.index(cut)] if cut in points else points):
        kept = store.get(source.key(shallower, rows))
        if kept is not None:
            _, part = cuts.split(source.model, shallower)
            start, indices = kept, np.arange(len(rows))
            break
    if cut in points:
        part, _ = cuts.split(part, cut)
    forward = Forward(part, source.batch_size)
    batches = forward.batches(start, indices, f"activations at {cut}")
    key = source.key(cut, rows, precision)
    return store.put(key, forward.output_shape, len(rows), batches, precision)


def views_of(
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
    made = []
    for number in range(1, augment.count):
        depends = f"{source.images_sha256} {_digest(rows)} {augment.digest(seed, number)}"
        name = hashlib.sha256(depends.encode()).hexdigest()
        key = {
            "backbone": "pictures",
            "cut": f"view {number}",
            "images_sha256": name,
            "image_size": int(source.images.shape[1]),
            "precision": "uint8",
            **runtime.versions(),
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
