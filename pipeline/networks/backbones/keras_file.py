"""Models provided by the user: .keras or .h5, Functional or Sequential.

file -> Backbone. Takes images, or vectors if the model was trained on flattened ones.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, shortened
from pipeline.networks import scaling
from pipeline.networks.backbones import Backbone, BackboneConfig, weights_file
from pipeline.settings import AUTO, setting
from pipeline.storage.digests import file_sha256

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

    from pipeline.networks.features_of import Selected


_UNKNOWN = re.compile(r"(?:Unknown layer: |Could not locate class )'(?P<name>[^']*)'")

_PLAIN = "float32"


@dataclass
class Config(BackboneConfig):
    """A model file and the scaling of its inputs; `path` is the .keras or .h5 file."""

    kind: str = "keras_file"
    features: str | None = setting(
        None,
        "Name of the layer to use as features; null for the input of the model's head, or its "
        "output if it has no head.",
    )
    scale: Any = setting(AUTO, scaling.HELP)
    offset: float = setting(0.0, "Added after multiplying by backbone.scale.", advanced=True)
    allow_code: bool = setting(
        False,
        "Load models whose file contains code (Lambda layers). It runs with your permissions: only "
        "for files that you trust.",
        advanced=True,
    )

    def check(self, section: str) -> None:
        """Check scale and offset together."""
        scaling.check(section, self.scale, self.offset)

    def file(self) -> tuple[str, Path]:
        """Return the model file."""
        return "backbone.path", Path(self.path)

    def shaping(self) -> dict[str, Any]:
        """Include the file's content, which shapes the network."""
        return {**super().shaping(), "model_sha256": file_sha256(Path(self.path))}


def build(config: Config, image_size: int) -> Backbone:
    """Load the model and join it to images of `image_size` px."""
    import keras

    path = _file(config)
    opened = _opened(config, image_size)
    images = opened.inputs[0]
    selected = _selected(opened, config)
    features = selected.features
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="features")(features)
    if len(features.shape) != 2:
        raise InputError(
            f"backbone.features must name a layer with (B, D) or (B, H, W, C) output, got "
            f"{config.features or selected.why} with {tuple(features.shape)}: name another"
        )
    joined = keras.Model(images, features, name=path.stem.replace(".", "_"))
    return Backbone(joined, path.stem, selected.why)


def scalings(config: Config, image_size: int) -> tuple[tuple[str, ...], str]:
    """List the scalings to try, unless the model scales its input itself."""
    opened = _opened(config, image_size)
    if layer := scaling.scales_itself(opened):
        return (), f"the model scales its input itself, in {layer}"
    grey = _is_grey(tuple(_load(_file(config), config).inputs[0].shape[1:]), image_size)
    return (scaling.GREY if grey else tuple(scaling.NAMED)), ""


def _opened(config: Config, image_size: int) -> keras.Model:
    """Expand the model, including nested ones, and join it to images of a size."""
    import keras

    from pipeline.networks.graph import replay

    model = _load(_file(config), config)
    images = keras.Input((image_size, image_size, 3), name="images")
    adapted = _adapted(images, tuple(model.inputs[0].shape[1:]), config)
    return keras.Model(images, replay(model, adapted))


def _is_grey(shape: tuple[int | None, ...], size: int) -> bool:
    return shape in ((size * size,), (size, size)) or (len(shape) == 3 and shape[-1] == 1)


def sides(config: Config) -> tuple[int, int] | None:
    """Return the side in px that the model was built for, twice; None for any."""
    shape = _load(_file(config), config).inputs[0].shape[1:]
    side: int | None = shape[0]
    if len(shape) == 1:  # flattened images, grey or colour
        roots = [math.isqrt(shape[0] // bands) for bands in (1, 3) if not shape[0] % bands]
        side = next((root for root in roots if shape[0] in (root**2, 3 * root**2)), None)
    return None if side is None else (side, side)


def _file(config: Config) -> Path:
    from pipeline.networks import foreign_file

    foreign_file.refuse(Path(config.path))
    return weights_file(config.path, "backbone.path")


def _load(path: Path, config: Config) -> keras.Model:
    import keras

    from pipeline.networks import foreign_file, graph

    try:
        if foreign_file.written_by(path).startswith("2"):
            model = foreign_file.load_keras2(path, safe_mode=not config.allow_code)
        else:
            model = keras.saving.load_model(path, compile=False, safe_mode=not config.allow_code)
    except Exception as error:
        text = " ".join(str(error).split())
        if not config.allow_code and ("unsafe" in text or "safe_mode" in text):
            raise InputError(
                f"{path} contains code, which is not run by default: if you trust the file, set "
                "backbone.allow_code=true"
            ) from error
        if unknown := _UNKNOWN.search(text):
            raise InputError(
                f"{path} uses the layer {unknown['name']}, which is not in Keras, and does not "
                "contain its code: build the network with another layer instead"
            ) from error
        raise InputError(
            f"backbone.path must be a Keras model, {path} is not: {shortened(text)}"
        ) from error
    if not graph.is_graph(model):
        raise InputError(f"{path} must be a Functional or Sequential model, not a custom class")
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            raise InputError(
                f"{path} must have one {what}, got {len(tensors)}: save the part that has one"
            )
    return _in_float32(model, safe_mode=not config.allow_code)


def _in_float32(model: keras.Model, safe_mode: bool) -> keras.Model:
    """Return the model, converted to float32 if it uses another precision."""
    import keras

    if all(layer.compute_dtype == _PLAIN for layer in model.layers):
        return model
    config = _plain(keras.saving.serialize_keras_object(model))
    rebuilt: keras.Model = keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
    rebuilt.set_weights([weight.astype(_PLAIN) for weight in model.get_weights()])
    return rebuilt


def _plain(value: Any) -> Any:
    """Set every precision in a config to float32."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return {**value, "config": {"name": _PLAIN}}
        plain = {key: _plain(inner) for key, inner in value.items()}
        if isinstance(plain.get("dtype"), str) and "float" in plain["dtype"]:
            plain["dtype"] = _PLAIN
        return plain
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(inner) for inner in value)
    return value


def _selected(model: keras.Model, config: Config) -> Selected:
    from pipeline.networks import features_of, graph

    if config.features is None:
        return features_of.find(model)
    outputs = {node.operation.name: node.outputs[0] for node in graph.nodes(model)}
    if config.features not in outputs:
        near = get_close_matches(config.features, outputs, n=3, cutoff=0)
        raise InputError(
            f"backbone.features must name a layer of {config.path}, got {config.features!r}; "
            f"did you mean {', '.join(near)}?"
        )
    return features_of.Selected(outputs[config.features], f"the output of {config.features}")


def _adapted(images: KerasTensor, shape: tuple[int | None, ...], config: Config) -> KerasTensor:
    """Convert images in [0, 255] to the model's input: scaled, grey or flattened if needed."""
    import keras

    size = images.shape[1]
    x = images
    if _is_grey(shape, size):
        x = keras.ops.image.rgb_to_grayscale(x)
    x = scaling.scaled(x, config.scale, config.offset)
    if len(shape) < 3 and math.prod(x.shape[1:]) == math.prod(side or 0 for side in shape):
        x = keras.layers.Reshape(shape, name="flat")(x)
    sizes = [
        have for have, want in zip(x.shape[1:], shape, strict=False) if want not in (None, have)
    ]
    if len(x.shape) - 1 != len(shape) or sizes:
        raise InputError(_misfit(config, size, shape))
    return x


def _misfit(config: Config, size: int, shape: tuple[int | None, ...]) -> str:
    """Explain why images do not fit a model, and what would help."""
    takes = f"{config.path} takes {' x '.join(str(side or 'any') for side in shape)}"
    if len(shape) == 3 and shape[0] in (1, 3) and shape[-1] not in (1, 3):
        return f"{takes}, channels first: save it with data_format=channels_last"
    if len(shape) == 3 and shape[-1] not in (None, 1, 3):
        return f"images have 3 channels (or 1, in grey), {takes}: use a network for RGB images"
    if len(shape) == 3 and shape[0] != shape[1]:
        return f"images are square, {takes}: use a network for square images"
    if len(shape) not in (1, 2, 3):
        return f"images have height, width and channels, {takes}: use a network for single images"
    side = round(math.sqrt(shape[0])) if len(shape) == 1 and shape[0] else shape[0]
    return f"prepare.image_size={size} does not fit, {takes}: set prepare.image_size={side}"
