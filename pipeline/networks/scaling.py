"""Input scaling of a network: a name, or a factor and an offset.

images in [0, 255] -> what the network was trained on; model -> its own scaling layer, if any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import InputError
from pipeline.settings import AUTO

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


NAMED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((1.0,), (0.0,)),
    "unit": ((1 / 255,), (0.0,)),
    "symmetric": ((1 / 127.5,), (-1.0,)),
    "imagenet": (
        tuple(1 / (255 * each) for each in _DEVIATION),
        tuple(-mean / each for mean, each in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "caffe": ((1.0,), (-103.939, -116.779, -123.68)),
}
"""The usual scalings, each a factor for values in [0, 255] and an offset, by channel or for all."""
GREY = ("none", "unit", "symmetric")
"""Scalings for images with one channel."""
HELP = (
    "Input scaling that the model was trained with: none, unit ([0, 1]), symmetric ([-1, 1]), "
    "imagenet (mean and deviation), caffe (BGR minus mean), or a factor with backbone.offset. "
    "`auto` uses the model's own, or else finds the best on training images."
)


def check(section: str, scale: object, offset: float) -> None:
    """Check the two settings.

    Raises:
        InputError: `scale` is neither a name nor a number, or has an offset besides a name.
    """
    number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
    if not number and scale not in (AUTO, *NAMED):
        names = ", ".join((AUTO, *NAMED))
        raise InputError(f"{section}.scale must be a number or one of {names}, got {scale}")
    if not number and offset:
        raise InputError(
            f"{section}.offset needs a number in {section}.scale, got {section}.scale={scale}"
        )


def scaled(images: KerasTensor, scale: float | str, offset: float) -> KerasTensor:
    """Scale images, with a layer called `preprocessing`.

    Args:
        images: (B, H, W, C) in [0, 255].
        scale: `backbone.scale`; `auto` leaves images unchanged.
        offset: `backbone.offset`.
    """
    import keras

    named = NAMED.get("none" if scale == AUTO else str(scale))
    how = named or ((float(scale),), (offset,))
    if how == NAMED["none"]:
        return images
    if scale == "caffe":  # blue first
        images = keras.ops.flip(images, axis=-1)
    each = [values[0] if len(values) == 1 else list(values) for values in how]
    return keras.layers.Rescaling(each[0], each[1], name="preprocessing")(images)


def scales_itself(model: keras.Model) -> str:
    """Find the layer that scales an expanded model's input before its first weights, or ''."""
    import keras

    from pipeline.networks import graph

    reached = {id(tensor) for tensor in model.inputs}
    for node in graph.nodes(model):
        if node.is_input or not any(id(tensor) in reached for tensor in node.input_tensors):
            continue
        operation = node.operation
        name = type(operation).__name__
        if isinstance(operation, (keras.layers.Rescaling, keras.layers.Normalization)):
            return str(operation.name)
        if name in ("Multiply", "Subtract", "Divide", "TrueDivide"):
            return str(operation.name)
        if not getattr(operation, "weights", None):
            reached |= {id(tensor) for tensor in node.outputs}
    return ""
