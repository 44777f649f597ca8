"""Deterministic augmented views of the training images, so that their activations can be kept.

images + layers of Keras -> other images. View 0 of an image is the image itself.
A view depends on (seed, view, which images) alone. Knows nothing of cuts or training.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
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
"""Up to so many training images, so many views pay; with more, images are varied enough."""


@dataclass
class Config:
    """Section `augment`."""

    use: str = setting("none", "How training images are varied.", group="augment")
    views: AutoInt = automatic(
        "Versions of each training image, the image itself being one: each is computed "
        "once and kept, and every epoch trains on another. auto goes by the number of images. "
        "0 draws a fresh one in every epoch, which fine-tuning cannot keep.",
        least=0,
    )
    layers: list[Any] = setting(
        [],
        "Random layers of Keras, each `Name: {argument: value}`, applied in order to images "
        "in [0, 255].",
    )

    def derive(self, images: int) -> tuple[Config, dict[str, Derived]]:
        """The section with a number of views.

        Args:
            images: In the train split.

        Returns:
            The section without `auto`; full name -> what was derived and why.
        """
        if not is_auto(self.views):
            return self, {}
        if not self.layers:
            return replace(self, views=1), {}
        views = views_for(images)
        return replace(self, views=int(views.value)), {"augment.views": views}

    @property
    def count(self) -> int:
        """Views that are kept: 1 where nothing is augmented, or nothing can be kept."""
        return max(self.views, 1) if self.layers else 1

    @property
    def fresh(self) -> bool:
        """Whether every epoch draws anew."""
        return bool(self.layers) and self.views == 0

    def digest(self, seed: int, view: int) -> str:
        """What a view depends on beside the images."""
        text = json.dumps([asdict(self)["layers"], seed, view], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def views_for(images: int) -> Derived:
    """How many views suit a number of training images."""
    views = next((views for most, views in _VIEWS if images <= most), 1)
    return Derived(views, f"{images} training images")


class Augmenter:
    """The layers of a `Config`, each reseeded before every batch.

    Raises:
        InputError: No random layer of Keras, or arguments that it does not take.
    """

    def __init__(self, config: Config) -> None:
        self._layers = [_layer(entry) for entry in config.layers]

    def __call__(self, batch: Pixels, words: list[int]) -> Pixels:
        """Augment a batch.

        Args:
            batch: (B, H, W, 3).
            words: What the drawing depends on, beside the layer's place.

        Returns:
            (B, H, W, 3), rounded to whole values.
        """
        x = batch.astype(np.float32)
        for place, layer in enumerate(self._layers):
            for number, generator in enumerate(_generators(layer)):
                values = np.random.SeedSequence([*words, place, number]).generate_state(2)
                generator.state.assign(values.astype(generator.state.dtype))
            x = layer(x, training=True)
        return np.clip(np.rint(np.asarray(x)), 0, 255).astype(np.uint8)

    def view(
        self, images: Any, rows: NDArray[np.int64], seed: int, number: int
    ) -> Iterator[Pixels]:
        """Yield one view of some images, batch by batch."""
        with tqdm(total=len(rows), desc=f"view {number}", unit="image", disable=None) as bar:
            for start in range(0, len(rows), 32):
                chosen = rows[start : start + 32]
                yield self(np.asarray(images[chosen]), [seed, number, start])
                bar.update(len(chosen))


class Fresh:
    """Images that are augmented anew in every epoch.

    Args:
        images: (M, H, W, 3).
        augmenter: Augments them.
        seed: Of the drawing.
    """

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
        known = [name for name in dir(keras.layers) if name.startswith("Rand")]
        raise InputError(
            f"augment.layers must name random layers of Keras, got {name!r}: {', '.join(known)}"
        )
    try:
        return layer(**(arguments or {}))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"augment.layers: {name} does not take {arguments}: {reason}") from error


def _generators(layer: keras.layers.Layer) -> list[Any]:
    """Everything random in a layer, in the order in which it was made."""
    import keras

    from pipeline.networks import graph

    generators: list[Any] = []
    for part in graph.parts(layer):
        for value in vars(part).values():
            if isinstance(value, keras.random.SeedGenerator) and value not in generators:
                generators.append(value)
    return generators
