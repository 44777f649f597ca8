"""Deterministic augmented views of the training pictures, so that their activations can be kept.

pictures + layers of Keras -> other pictures. View 0 of a picture is the picture itself.
A view depends on (seed, view, which pictures) alone. Knows nothing of cuts or training.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.errors import InputError

if TYPE_CHECKING:
    import keras

Pixels = NDArray[np.uint8]


@dataclass
class Config:
    """Section `augment`.

    Attributes:
        views: Versions of each training picture, the picture itself being one: each is
            computed once and kept, and every epoch trains on another. 0 for a fresh one in
            every epoch, which fine-tuning cannot keep.
        layers: Random layers of Keras, each `Name: {argument: value}`, applied in order to
            pictures in [0, 255].
    """

    views: int = 4
    layers: list[Any] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Views that are kept: 1 where nothing is augmented, or nothing can be kept."""
        return max(self.views, 1) if self.layers else 1

    @property
    def fresh(self) -> bool:
        """Whether every epoch draws anew."""
        return bool(self.layers) and self.views == 0

    def check(self) -> None:
        """Check what types cannot say.

        Raises:
            InputError: A negative number of views.
        """
        if self.views < 0:
            raise InputError(
                f"augment.views must be at least 1, or 0 for fresh ones every epoch, "
                f"got {self.views}"
            )

    def digest(self, seed: int, view: int) -> str:
        """What a view depends on beside the pictures."""
        text = json.dumps([asdict(self)["layers"], seed, view], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


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
        """Yield one view of some pictures, batch by batch."""
        with tqdm(total=len(rows), desc=f"view {number}", unit="picture", disable=None) as bar:
            for start in range(0, len(rows), 32):
                chosen = rows[start : start + 32]
                yield self(np.asarray(images[chosen]), [seed, number, start])
                bar.update(len(chosen))


class Rows:
    """Some rows of an array, read when they are asked for.

    Args:
        array: (N, ...), memory-mapped or not.
        rows: (M,) which of them.
    """

    def __init__(self, array: Any, rows: NDArray[np.int64]) -> None:
        self._array, self._rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(self._array[self._rows[rows]])


class Views:
    """Inputs that show each example another of its views in every epoch.

    In epoch e example i is seen as view e mod K of a permutation of its own.

    Args:
        arrays: K arrays: (M, ...) each.
        seed: Of the permutations.
    """

    def __init__(self, arrays: list[Any], seed: int) -> None:
        self._arrays = arrays
        self._views = np.zeros(len(arrays[0]), dtype=np.int64)
        places = np.tile(np.arange(len(arrays)), (len(arrays[0]), 1))
        self._orders = np.random.default_rng([seed, len(arrays)]).permuted(places, axis=1)
        self.shape = arrays[0].shape

    def begin(self, epoch: int) -> None:
        """Choose the views of an epoch, counted from 0."""
        self._views = self._orders[:, epoch % len(self._arrays)]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.empty((len(rows), *self.shape[1:]), self._arrays[0].dtype)
        views = self._views[rows]
        for view in np.unique(views):
            mine = views == view
            found[mine] = self._arrays[view][rows[mine]]
        return found


class Fresh:
    """Pictures that are augmented anew in every epoch.

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

    found: list[Any] = []
    for part in layer._flatten_layers():
        for value in vars(part).values():
            if isinstance(value, keras.random.SeedGenerator) and value not in found:
                found.append(value)
    return found
