"""Activations of the frozen part: computed once, cached by content, shared by all runs.

lower(images) -> memory-mapped array. With Keras, activations of a deeper cut are computed from the
deepest cached shallower ones, not from the images. Independent of training.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features import augmentation
from pipeline.features.source import Source, digest
from pipeline.features.store import Store
from pipeline.networks import runtime
from pipeline.networks.engines import Engine
from pipeline.networks.forward import Forward


def below(
    store: Store, source: Source, cut: str, rows: NDArray[np.int64], precision: str = "float32"
) -> NDArray[Any]:
    """Return the activations of M images at a cut, computing them if they are not cached.

    (M, h, w, C), memory-mapped, stored as `precision`: float32 or float16.
    """
    stored = store.get(source.key(cut, rows, precision))
    if stored is not None:
        store.hits += 1
        return stored
    store.misses += 1
    key, desc = source.key(cut, rows, precision), f"activations at {cut}"
    if source.frozen.cluster.on:
        from pipeline.features import spread

        shape = tuple(source.lower(cut).output_shape[1:])
        return store.put(key, shape, len(rows), spread.batches(source, cut, rows, desc), precision)
    forward, start, indices = _shortest_way(store, source, cut, rows)
    batches = forward.batches(start, indices, desc)
    return store.put(key, forward.output_shape, len(rows), batches, precision)


def _shortest_way(
    store: Store, source: Source, cut: str, rows: NDArray[np.int64]
) -> tuple[Forward, Any, NDArray[np.int64]]:
    """Return the forward pass to a cut, its input and the rows to use.

    Keras gives the same bytes from cached activations of a shallower cut as from the images. Other
    engines merge layers on both sides of a cut, and do not.
    """
    from pipeline.features import cuts

    if source.frozen.engine.engine == Engine.keras:
        from pipeline.networks.keras_forward import KerasForward

        points = cuts.cut_points(source.model)
        # From float32 only: results must not depend on what happens to be cached.
        for shallower in reversed(points[: points.index(cut)] if cut in points else points):
            cached = store.get(source.key(shallower, rows))
            if cached is not None:
                _, part = cuts.split(source.model, shallower)
                if cut in points:
                    part, _ = cuts.split(part, cut)
                return KerasForward(part, source.frozen.batch_size), cached, np.arange(len(rows))
    return source.forward(cut), source.images, rows


class Computed:
    """Activations at a cut that are computed on each access.

    Args:
        forward: Forward pass from the images to the cut.
        images: (M, H, W, 3), or another object with a shape, indexed by rows.
    """

    def __init__(self, forward: Forward, images: Any) -> None:
        self._forward, self._images = forward, images
        self.shape, self.dtype = (images.shape[0], *forward.output_shape), np.dtype(np.float32)

    def begin(self, epoch: int) -> None:
        """Tell the images which epoch begins, counted from 0."""
        if hasattr(self._images, "begin"):
            self._images.begin(epoch)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._forward.all(self._images, rows)


def views_of(store: Store, source: Source, rows: NDArray[np.int64]) -> list[Source]:
    """Create sources of the augmented views of M images, from view 1 on: view 0 is the image.

    `source` has a fixed number of views.
    """
    augment, seed = source.frozen.augment, source.frozen.seed
    views = []
    for number in range(1, augment.count):
        depends = [source.images_sha256, digest(rows), augment.layers, seed, number]
        name = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        key = {
            "backbone": "images",
            "cut": f"view {number}",
            "images_sha256": name,
            "image_size": int(source.images.shape[1]),
            "precision": "uint8",
            **runtime.versions(),
        }
        shape = tuple(source.images.shape[1:])
        drawn = augmentation.view(source.images, rows, augment, seed, number)
        images = store.put(key, shape, len(rows), drawn, "uint8")
        views.append(replace(source, images=images, images_sha256=name))
    return views
