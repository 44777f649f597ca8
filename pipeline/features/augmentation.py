"""Deterministic augmented views of the training images, so that activations can be cached.

images + Keras layers -> other images. View 0 of an image is the image itself. A view depends only
on (seed, view, images). Independent of cuts and training.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.settings import AutoInt, automatic, is_auto, setting
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

Pixels = NDArray[np.uint8]

_VIEWS = ((2_000, 4), (20_000, 2))
"""Maximum number of training images -> number of views; larger sets are varied enough."""


@dataclass
class Config:
    """Section `augment`."""

    use: str = setting("none", "Augmentation of training images.", group="augment")
    views: AutoInt = automatic(
        "Number of versions of each training image, including the original: each is computed and "
        "cached once, and each epoch uses another. `auto` depends on the number of images; 0 draws "
        "new ones every epoch, which fine-tuning cannot cache.",
        least=0,
    )
    layers: list[Any] = setting(
        [],
        "Random Keras layers, each `Name: {argument: value}`, applied in order to images in "
        "[0, 255].",
        advanced=True,
    )

    def derive(self, images: int) -> tuple[Config, dict[str, Derived]]:
        """Derive the number of views: the section without `auto`, and derived values by name."""
        if not is_auto(self.views):
            return self, {}
        if not self.layers:
            return replace(self, views=1), {}
        views = views_for(images)
        return replace(self, views=int(views.value)), {"augment.views": views}

    @property
    def count(self) -> int:
        """Number of cached views: 1 without augmentation, or if nothing can be cached."""
        return max(self.views, 1) if self.layers else 1

    @property
    def fresh(self) -> bool:
        """True if every epoch draws new views."""
        return bool(self.layers) and self.views == 0


def views_for(images: int) -> Derived:
    """Choose the number of views for a number of training images."""
    views = next((views for most, views in _VIEWS if images <= most), 1)
    return Derived(views, f"{images} training images")


class Augmenter:
    """The layers of a `Config`, reseeded before every batch.

    Raises:
        InputError: Not a random Keras layer, or wrong arguments.
    """

    def __init__(self, config: Config) -> None:
        self._layers = [_layer(entry) for entry in config.layers]

    def __call__(self, batch: Pixels, words: list[int]) -> Pixels:
        """Augment a batch.

        Args:
            batch: (B, H, W, 3).
            words: Seed of the draw, besides the layer's position.

        Returns:
            (B, H, W, 3), rounded to integers.
        """
        x = batch.astype(np.float32)
        for place, layer in enumerate(self._layers):
            for number, generator in enumerate(_generators(layer)):
                values = np.random.SeedSequence([*words, place, number]).generate_state(2)
                generator.state.assign(values.astype(generator.state.dtype))
            x = layer(x, training=True)
        return np.clip(np.rint(np.asarray(x)), 0, 255).astype(np.uint8)


def view(
    images: Any, rows: NDArray[np.int64], config: Config, seed: int, number: int
) -> Iterator[Pixels]:
    """Yield one view of some images, batch by batch."""
    augmenter = Augmenter(config)
    with tqdm(total=len(rows), desc=f"view {number}", unit="image", disable=None) as bar:
        for start in range(0, len(rows), 32):
            chosen = rows[start : start + 32]
            yield augmenter(np.asarray(images[chosen]), [seed, number, start])
            bar.update(len(chosen))


class Fresh:
    """Images, (M, H, W, 3), with new augmentation in every epoch."""

    def __init__(self, images: Any, augmenter: Augmenter, seed: int) -> None:
        self._images, self._augmenter, self._seed = images, augmenter, seed
        self._epoch = 0
        self.shape = images.shape

    def begin(self, epoch: int) -> None:
        """Draw for an epoch, counted from 0."""
        self._epoch = epoch

    def __getitem__(self, rows: NDArray[np.int64]) -> Pixels:
        words = [self._seed, self._epoch, zlib.crc32(np.ascontiguousarray(rows).tobytes())]
        return self._augmenter(np.asarray(self._images[rows]), words)


def _layer(entry: Any) -> keras.layers.Layer:
    import keras

    if not isinstance(entry, dict) or len(entry) != 1:
        raise InputError(f"augment.layers must list `Name: {{argument: value}}`, got {entry!r}")
    ((name, arguments),) = entry.items()
    layer = getattr(keras.layers, str(name), None)
    if layer is None or not str(name).startswith("Rand"):
        names = [name for name in dir(keras.layers) if name.startswith("Rand")]
        raise InputError(
            f"augment.layers must name random Keras layers, got {name!r}: {', '.join(names)}"
        )
    try:
        return layer(**(arguments or {}))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"augment.layers: {name} does not take {arguments}: {reason}") from error


def _generators(layer: keras.layers.Layer) -> list[Any]:
    """List the random generators in a layer, in order of creation."""
    import keras

    from pipeline.networks import graph

    generators: list[Any] = []
    for part in graph.parts(layer):
        for value in vars(part).values():
            if isinstance(value, keras.random.SeedGenerator) and value not in generators:
                generators.append(value)
    return generators
