"""Grad-CAM: the image regions that a prediction is based on.

classifier + images -> heat maps. Source: Selvaraju et al. 2017, Grad-CAM: Visual Explanations from
Deep Networks via Gradient-based Localization. If a head flattens the map instead of averaging it,
gradients of different positions must not be mixed: Draelos and Carin 2020, Use HiResCAM instead of
Grad-CAM. For averaged maps, both are the same.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.image_file import Pixels


class GradCam:
    """Heat maps of one classifier.

    Args:
        model: (B, H, W, 3) -> (B, K), ending in a head's layers.

    Attributes:
        layer: Name of the layer whose map is used: the last one, from the first with weights on,
            that has at least `MIN_SIDE` positions per side, or the most of any; None if no layer
            keeps rows and columns, as in networks that process an image as a sequence.
    """

    def __init__(self, model: keras.Model) -> None:
        first = next((n for n, layer in enumerate(model.layers) if layer.weights), 0)
        spatial = [layer for layer in model.layers[first:] if _is_spatial(layer)]
        enough = min(MIN_SIDE, max(map(_side, spatial), default=0))
        chosen = [layer for layer in spatial if _side(layer) >= enough]
        self.layer: str | None = chosen[-1].name if chosen else None
        if chosen:
            # The gradient of a confident softmax vanishes; that of the logits does not.
            logits = model.layers[-1].input
            self._inner = keras.Model(model.inputs, [chosen[-1].output, logits])

    def maps(self, images: Pixels, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute the evidence for a class, by position.

        Args:
            images: (B, H, W, 3) uint8 RGB.
            classes: (B,) class indices.

        Returns:
            (B, h, w) in [0, 1]; all 0 if there is no evidence for the class.
        """
        inputs = tf.constant(images, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(inputs)  # and everything computed from it
            activations, logits = self._inner(inputs, training=False)
            own = tf.gather(logits, classes, axis=1, batch_dims=1)
            # Relative to other classes: a logit alone may decrease everywhere, and the others more.
            other = tf.where(tf.one_hot(classes, logits.shape[1]) > 0, logits.dtype.min, logits)
            score = own - tf.reduce_logsumexp(other, axis=1)
        gradients = tape.gradient(score, activations)
        heat = tf.nn.relu(tf.reduce_sum(gradients * activations, axis=-1)).numpy()
        top = heat.max(axis=(1, 2), keepdims=True)
        scaled: NDArray[np.float32] = heat / np.where(top > 0, top, 1)
        return scaled


MIN_SIDE = 5
"""Minimum side of a map: smaller ones only show that something is somewhere."""


def overlay(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Overlay an (H, W, 3) image with its (h, w) heat map in [0, 1]; cold regions are unchanged."""
    size = (image.shape[1], image.shape[0])
    full = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    full = np.clip(full, 0, 1)
    colors = colormaps["turbo"](0.5 + full / 2)[..., :3] * 255
    share = 0.7 * full[..., None]
    mixed: Pixels = ((1 - share) * image + share * colors).astype(np.uint8)
    return mixed


def _side(layer: keras.Layer) -> int:
    return int(min(layer.output.shape[1:3]))


def _is_spatial(layer: keras.Layer) -> bool:
    shape: tuple[int | None, ...] = getattr(getattr(layer, "output", None), "shape", ())
    return len(shape) == 4 and None not in shape[1:] and shape[1:3] != (1, 1)
