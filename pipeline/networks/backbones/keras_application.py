"""Any network of keras.applications, without its top, average-pooled.

name + weights -> Backbone. The network's own preprocessing becomes its first layers.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import InputError, shortened
from pipeline.networks.backbones import Backbone, BackboneConfig, weights_file
from pipeline.settings import REQUIRED, setting

if TYPE_CHECKING:
    from keras import KerasTensor


@dataclass
class Config(BackboneConfig):
    """A network of keras.applications."""

    kind: str = "keras_application"
    name: str = setting(REQUIRED, "Name in keras.applications, such as MobileNetV2.")
    weights: str | None = setting("imagenet", "imagenet, null for random weights, or a path.")
    options: dict[str, Any] = setting(
        {}, "Further arguments of the network, such as {alpha: 0.35}.", advanced=True
    )

    def file(self) -> tuple[str, Path] | None:
        """Return the weights file, unless Keras finds or downloads it."""
        own = self.weights not in (None, "imagenet")
        return ("backbone.weights", Path(str(self.weights))) if own else None


def build(config: Config, image_size: int) -> Backbone:
    """Build the network for images of `image_size` px."""
    import keras

    network = getattr(keras.applications, config.name, None)
    if not callable(network):
        raise InputError(
            f"backbone.name must be a network of keras.applications, got {config.name!r}: see "
            "keras.io/api/applications"
        )
    weights = config.weights
    if weights not in (None, "imagenet"):
        weights = str(weights_file(str(weights), "backbone.weights"))
    images = keras.Input((image_size, image_size, 3), name="images")
    try:
        with warnings.catch_warnings():
            # MobileNets warn about weights of 224 px at another size, which is intended.
            warnings.filterwarnings("ignore", message="`input_shape` is undefined")
            model = network(
                include_top=False,
                weights=weights,
                input_tensor=_preprocessed(images, sys.modules[network.__module__]),
                pooling="avg",
                **config.options,
            )
    except Exception as error:
        raise _explained(error, config, image_size) from error
    return Backbone(model, config.name)


def _preprocessed(images: KerasTensor, module: Any) -> KerasTensor:
    """Express the network's `preprocess_input` as layers that belong to the model.

    All of them are affine per channel, some after converting RGB to BGR, so three probes identify
    them; those that leave images unchanged (the network has its own layers) add nothing.
    """
    import keras

    def probe(*rgb: float) -> Any:
        image = np.array(rgb, dtype=np.float32).reshape(1, 1, 1, 3)
        return np.asarray(module.preprocess_input(image)).reshape(3)

    black, white, red = probe(0, 0, 0), probe(255, 255, 255), probe(255, 0, 0)
    scale = np.round((white - black) / 255.0, 9)
    if np.allclose(scale, 1) and np.allclose(black, 0):
        return images
    if not np.isclose(red[0], white[0]):
        images = keras.ops.flip(images, axis=-1)
    layer = keras.layers.Rescaling(scale.tolist(), offset=black.tolist(), name="preprocessing")
    return layer(images)


def _explained(error: Exception, config: Config, image_size: int) -> Exception:
    """Translate Keras' error to the terms of params.yaml, if possible."""
    text = str(error)
    if "URL fetch failure" in text:
        url = next(word for word in text.split() if word.startswith("http")).rstrip(":")
        file = PurePosixPath(url).name
        return InputError(
            f"backbone.weights=imagenet needs {file}, which cannot be downloaded and is not in "
            "~/.keras/models (or $KERAS_HOME/models): put it there, or set backbone.weights to "
            "the path of a weights file"
        )
    if "nput size must be at least" in text or "zero or negative" in text:
        name, first = config.name, text.splitlines()[0]
        return InputError(f"prepare.image_size={image_size} is too small for {name}: {first}")
    if isinstance(error, (ValueError, TypeError, OSError, KeyError)):
        return InputError(
            f"keras.applications.{config.name} does not take weights={config.weights} with "
            f"{dict(config.options)} at {image_size} px: {shortened(text)}"
        )
    return error
