"""A network of KerasHub: a preset by name, or a folder from KerasHub, Hugging Face or timm.

preset -> Backbone. Its scaling becomes the first layers; resizing stays in prepare. An encoder that
is one layer is expanded to its blocks, so that it can be cut between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, shortened
from pipeline.networks import scaling
from pipeline.networks.backbones import Backbone, BackboneConfig
from pipeline.settings import AUTO, REQUIRED, setting
from pipeline.storage.digests import digest

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor


class Pool(StrEnum):
    """Features of a network that returns one token per patch."""

    auto = "auto"
    token = "token"
    patches = "patches"


_ANY_SIZE = ("DINOV2Backbone", "DINOV3Backbone")
"""Networks that adapt their position embeddings to other image sizes."""


@dataclass
class Config(BackboneConfig):
    """A preset, and the choice of its features."""

    kind: str = "keras_hub"
    preset: str = setting(
        REQUIRED,
        "A name from keras.io/keras_hub/presets, which is downloaded, or ./folder, as saved by "
        "KerasHub, Hugging Face or timm.",
    )
    pool: Pool = setting(
        Pool.auto,
        "Features of a network with one token per patch: token is the token of the whole image, "
        "patches the mean of the others; auto uses the token if there is one.",
        advanced=True,
    )
    scale: Any = setting(AUTO, scaling.HELP)
    offset: float = setting(0.0, "Added after multiplying by backbone.scale.", advanced=True)

    def check(self, section: str) -> None:
        """Check scale and offset together."""
        scaling.check(section, self.scale, self.offset)

    def file(self) -> tuple[str, Path] | None:
        """Return the folder, if it is one."""
        return ("backbone.preset", Path(self.preset)) if self.is_folder else None

    takes_folders = True

    def shaping(self) -> dict[str, Any]:
        """Include a folder's content, which shapes the network, instead of its path."""
        settings = super().shaping()
        return {**settings, "preset": digest(Path(self.preset))} if self.is_folder else settings

    @property
    def is_folder(self) -> bool:
        """True if the preset is a folder on disk."""
        return Path(self.preset).is_dir()


def build(config: Config, image_size: int) -> Backbone:
    """Load the preset and join it to images of `image_size` px."""
    import keras

    from pipeline.networks import foreign_layers
    from pipeline.networks.graph import replay

    network = _load(config, image_size)
    images = keras.Input((image_size, image_size, 3), name="images")
    scaled = _scaled(images, config)
    try:
        opened = keras.Model(images, replay(network, scaled, _opener(network)))
    except Exception as error:  # from its layers, for images of this size
        raise InputError(
            f"backbone.preset={config.preset} does not take images of {image_size} px: "
            f"{shortened(str(error))}; set prepare.image_size, or choose another network"
        ) from error
    features, taken = _pooled(opened.outputs[0], network, config)
    name = Path(config.preset).name.replace(".", "_")
    joined = keras.Model(images, features, name=name)
    return Backbone(foreign_layers.savable(joined, config.preset), name, taken)


def sides(config: Config) -> tuple[int, int] | None:
    """Return the side in px that the preset was built for, twice; None for any."""
    network = _from_preset(config, load_weights=False)
    side = network.inputs[0].shape[1]
    return None if side is None or type(network).__name__ in _ANY_SIZE else (side, side)


def _hub() -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise InputError(
            "backbone.kind=keras_hub needs KerasHub: pip install 'keras-hub>=0.32'"
        ) from error
    return keras_hub


def _load(config: Config, image_size: int) -> keras.Model:
    """Load the network with its weights, for images of a size.

    Raises:
        InputError: It is not available, or does not take such images.
    """
    fixed = sides(config)
    if fixed and image_size != fixed[0]:
        raise InputError(
            f"prepare.image_size must be {fixed[0]} for {config.preset}, which was built for "
            f"images of that size, got {image_size}"
        )
    sized = {}
    if fixed is None and (patch := _patch(_from_preset(config, load_weights=False))):
        if image_size % patch:
            below = max(patch, image_size - image_size % patch)
            raise InputError(
                f"prepare.image_size must be a multiple of {patch}, the patch size of "
                f"{config.preset}, got {image_size}: set {below} or {below + patch}"
            )
        sized = {"image_shape": (image_size, image_size, 3)}
    return _from_preset(config, **sized)


def _patch(network: keras.Model) -> int:
    """Return the patch size of networks that adapt to image sizes; 0 for others."""
    return int(network.patch_size) if type(network).__name__ in _ANY_SIZE else 0


def _from_preset(config: Config, **options: Any) -> keras.Model:
    if config.preset.startswith((".", "/")) and not config.is_folder:
        raise InputError(f"backbone.preset must be a folder, got {config.preset}: no such folder")
    try:
        network = _hub().models.Backbone.from_preset(config.preset, **options)
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"backbone.preset={config.preset} needs {error.name}: pip install {error.name}"
        ) from error
    except Exception as error:  # from KerasHub, Kaggle, Hugging Face or the network
        raise InputError(
            f"backbone.preset={config.preset} cannot be loaded: {shortened(str(error))}; use a "
            "name from keras.io/keras_hub/presets, or ./folder"
        ) from error
    network = getattr(network, "vision_encoder", network)  # of an image-and-text network
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4 or len(network.outputs) != 1:
        raise InputError(
            f"backbone.preset must be a network from images to features, {config.preset} is a "
            f"{type(network).__name__}: choose another"
        )
    return network


def _scaled(images: KerasTensor, config: Config) -> KerasTensor:
    """Apply the preset's scale and offset of each channel, as a layer."""
    import keras

    own = _own_scaling(config) if config.scale == AUTO else None
    if own is None:
        return scaling.scaled(images, config.scale, config.offset)
    each, shift = own
    return keras.layers.Rescaling(each, offset=shift, name="preprocessing")(images)


def scalings(config: Config, image_size: int) -> tuple[tuple[str, ...], str]:
    """List the scalings to try, unless the preset says how its images are scaled."""
    return (() if _own_scaling(config) else tuple(scaling.NAMED)), ""


def _own_scaling(config: Config) -> tuple[list[float], list[float]] | None:
    """Return factor and offset of each channel; None if the preset does not say."""
    import numpy as np

    try:
        converter = _hub().layers.ImageConverter.from_preset(config.preset)
        if converter is None:
            return _of_hugging_face(config.preset)
        side = (converter.image_size or (8, 8))[0]
        black, white = (  # two colours reveal its scaling
            np.asarray(converter(np.full((1, side, side, 3), value, np.float32)))[0, 0, 0]
            for value in (0, 255)
        )
    except Exception:  # KerasHub raises another one for each kind of folder
        return None
    return np.round((white - black) / 255.0, 9).tolist(), np.round(black, 9).tolist()


def _of_hugging_face(preset: str) -> tuple[list[float], list[float]]:
    """Read the scaling from preprocessor_config.json, which KerasHub does for few networks.

    Raises:
        OSError: There is none.
    """
    from keras_hub.src.utils.preset_utils import load_json

    spec = load_json(preset, "preprocessor_config.json")
    factor = spec.get("rescale_factor", 1 / 255) if spec.get("do_rescale", True) else 1.0
    if not spec.get("do_normalize", True):
        return [factor] * 3, [0.0] * 3
    each = list(zip(spec["image_mean"], spec["image_std"], strict=True))
    return [factor / std for _, std in each], [-mean / std for mean, std in each]


def _opener(network: keras.Model) -> Any:
    """Return how to call each operation of a network: an encoder as its blocks, one by one."""
    import keras

    from pipeline.networks import foreign_layers

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        match type(operation).__name__:
            case "ViTEncoder":
                x = operation.dropout(args[0])
                for block in operation.encoder_layers:
                    x = block(x)
                return operation.layer_norm(x)
            case "DeiTEncoder":
                x = args[0]
                for block in operation.encoder_layers:
                    x, _ = block(x, return_attention_scores=True)  # else the second is not a tensor
                return operation.layer_norm(x), x, x  # the others are empty and unused
            case "DINOV2Encoder" | "DINOV3Encoder":
                x, after = args[0], {}
                for place, block in enumerate(operation.layers, start=1):
                    x = block(x, **kwargs)
                    after[f"stage{place}"] = x
                return x, after
            case "SwinTransformerStage":
                x = args[0]
                for block in operation.blocks:
                    block.name = f"{operation.name}_{block.name}"  # unique across stages
                    x = foreign_layers.shaped(block, x)
                if operation.downsample is None:
                    return x
                operation.downsample.name = f"{operation.name}_downsample"
                height, width = operation.input_resolution
                return foreign_layers.shaped(operation.downsample, x, H=height, W=width)
            case "SigLIPVisionEmbedding" | "PatchEmbedding":
                return foreign_layers.shaped(operation, *args)
            case "DINOV3RopePositionEmbedding":
                # It depends only on the image size. As a tensor that every block takes, it would
                # leave no place to cut.
                shape = (1, *args[0].shape[1:])
                return keras.tree.map_structure(
                    keras.ops.stop_gradient, operation(keras.ops.zeros(shape))
                )
        return operation(*args, **kwargs)

    return call


def _pooled(output: KerasTensor, network: keras.Model, config: Config) -> tuple[KerasTensor, str]:
    """Return (B, D) features, and an explanation which part of the network they are."""
    from keras import layers

    if len(output.shape) == 4:
        return layers.GlobalAveragePooling2D(name="features")(output), "the mean of its last map"
    if len(output.shape) == 2:
        return output, "its own pooled output"
    tokens = output.shape[1]
    first = _first_tokens(network)
    if config.pool == Pool.token and not first:
        raise InputError(
            f"backbone.pool=token needs a network with a token for the whole image, "
            f"{config.preset} has none: set backbone.pool=patches"
        )
    if first and config.pool != Pool.patches:
        token = layers.Cropping1D((0, tokens - 1), name="token")(output)
        return layers.Flatten(name="features")(token), "the token of the whole image"
    patches = layers.Cropping1D((first, 0), name="patches")(output) if first else output
    return layers.GlobalAveragePooling1D(name="features")(patches), "the mean of its patches"


def _first_tokens(network: keras.Model) -> int:
    """Count the tokens before those of the patches."""
    if type(network).__name__ in _ANY_SIZE:
        return 1 + int(network.num_register_tokens)
    if type(network).__name__ == "DeiTBackbone":
        return 2  # the second one is for distillation
    return int(getattr(network, "use_class_token", False))
