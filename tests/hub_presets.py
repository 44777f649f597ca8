"""Small networks of KerasHub's families with random weights, as folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

SIDE = 32
FAMILIES: dict[str, Callable[[Any], Any]] = {
    "vit": lambda hub: hub.ViTBackbone(
        image_shape=(SIDE, SIDE, 3),
        patch_size=(8, 8),
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    ),
    "deit": lambda hub: hub.DeiTBackbone(
        image_shape=(SIDE, SIDE, 3),
        patch_size=8,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "dinov2": lambda hub: hub.DINOV2Backbone(
        patch_size=8,
        num_layers=3,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        num_register_tokens=2,
        image_shape=(SIDE, SIDE, 3),
        position_embedding_shape=(64, 64, 3),
    ),
    "dinov3": lambda hub: hub.DINOV3Backbone(
        patch_size=8,
        num_layers=3,
        hidden_dim=16,
        num_heads=2,
        intermediate_dim=32,
        num_register_tokens=2,
        image_shape=(SIDE, SIDE, 3),
    ),
    "siglip": lambda hub: hub.SigLIPBackbone(
        vision_encoder=hub.SigLIPVisionEncoder(
            patch_size=8,
            hidden_dim=16,
            num_layers=3,
            num_heads=2,
            intermediate_dim=32,
            image_shape=(SIDE, SIDE, 3),
        ),
        text_encoder=hub.SigLIPTextEncoder(
            vocabulary_size=64,
            embedding_dim=16,
            hidden_dim=16,
            num_layers=1,
            num_heads=2,
            intermediate_dim=32,
        ),
    ),
    "efficientnet": lambda hub: hub.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[2, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[2, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        width_coefficient=1.0,
        depth_coefficient=1.0,
    ),
    "mobilenet_v3": lambda hub: hub.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32, 32]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=32,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=8,
        image_shape=(None, None, 3),
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=32,
    ),
    "resnet": lambda hub: hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    ),
    "mit": lambda hub: hub.MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=(SIDE, SIDE, 3),
        hidden_dims=[8, 16],
    ),
    "swin": lambda hub: hub.SwinTransformerBackbone(
        image_shape=(SIDE, SIDE, 3),
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
        window_size=4,
        patch_size=4,
    ),
}
CONVERTERS = {
    "vit": "ViTImageConverter",
    "deit": "DeiTImageConverter",
    "dinov2": "DINOV2ImageConverter",
    "dinov3": "DINOV3ImageConverter",
    "siglip": "SigLIPImageConverter",
    "efficientnet": "EfficientNetImageConverter",
    "mobilenet_v3": "MobileNetImageConverter",
    "resnet": "ResNetImageConverter",
    "mit": "MiTImageConverter",
    "swin": "SwinTransformerImageConverter",
}
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SCALE, OFFSET = [1 / 58, 1 / 57, 1 / 56], [-2.1, -2.0, -1.8]


def save(family: str, folder: Path) -> Path:
    """Save a preset, with its own scaling."""
    import keras_hub

    keras.utils.set_random_seed(1)
    FAMILIES[family](keras_hub.models).save_to_preset(str(folder))
    converter = getattr(keras_hub.layers, CONVERTERS[family])
    converter(image_size=(SIDE, SIDE), scale=SCALE, offset=OFFSET).save_to_preset(str(folder))
    return folder


def save_as_hugging_face_does(folder: Path) -> Path:
    """Save a DINOv2 with two blocks and patches of 8 px, its scaling that of ImageNet."""
    from safetensors.numpy import save_file

    width, inner = 16, 32
    block = {
        **{f"attention.attention.{item}": (width, width) for item in ("query", "key", "value")},
        "attention.output.dense": (width, width),
        "mlp.fc1": (inner, width),
        "mlp.fc2": (width, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, 1 + (SIDE // 8) ** 2, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 8, 8),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for place in range(2):
        inside = f"encoder.layer.{place}"
        for name, shape in block.items():
            shapes[f"{inside}.{name}.weight"], shapes[f"{inside}.{name}.bias"] = shape, shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{inside}.{name}"] = (width,)
        for name in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            shapes[f"{inside}.{name}"] = (width,)
    drawn = np.random.default_rng(0)
    values = {name: drawn.normal(0, 0.3, shape) for name, shape in shapes.items()}
    folder.mkdir()
    save_file(
        {name: value.astype(np.float32) for name, value in values.items()},
        folder / "model.safetensors",
    )
    message = {
        "model_type": "dinov2",
        "architectures": ["Dinov2Model"],
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": inner // width,
        "image_size": SIDE,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "drop_path_rate": 0.0,
        "hidden_dropout_prob": 0.0,
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }
    (folder / "config.json").write_text(json.dumps(message), encoding="utf-8")
    scaling = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**scaling, "image_mean": MEAN, "image_std": DEVIATION}), encoding="utf-8"
    )
    return folder
