"""Cut points, splits and what trains above them, on real networks."""

from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features import cuts
from pipeline.networks import backbones, heads
from pipeline.networks.backbones import glyph_cnn, keras_application, keras_file


def network(name: str, size: int = 96) -> keras.Model:
    if name == "glyph_cnn":
        return backbones.build(glyph_cnn.Config(), 8, 0).model
    if name == "mlp":
        layers = [keras.layers.Dense(32, activation="relu", name=f"dense{n}") for n in (1, 2, 3)]
        return keras.Sequential(
            [keras.Input((784,)), *layers, keras.layers.Dense(10, name="dense4")]
        )
    return backbones.build(keras_application.Config(name=name, weights=None), size, 0).model


@pytest.mark.parametrize(
    "name",
    [
        *("glyph_cnn", "mlp", "MobileNetV2", "MobileNetV3Small", "EfficientNetV2B0", "ResNet50"),
        *("VGG16", "ConvNeXtTiny", "DenseNet121", "InceptionV3", "Xception", "NASNetMobile"),
    ],
)
def test_upper_of_lower_is_the_model(name: str) -> None:
    model = network(name)
    shape = tuple(model.inputs[0].shape[1:])
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(np.float32)
    points = cuts.cut_points(model)
    assert len(points) > 3
    expected = np.asarray(model(x, training=False))
    for at in points[:: max(1, len(points) // 3)]:
        lower, upper = cuts.split(model, at)
        middle = lower(x, training=False)
        # Not to the last bit everywhere: TensorFlow fuses operations across some cuts.
        slack = 1e-5 * float(np.abs(expected).max())
        np.testing.assert_allclose(upper(middle, training=False), expected, rtol=1e-5, atol=slack)
        weights = [id(w) for w in (*lower.weights, *upper.weights)]
        assert sorted(weights) == sorted(map(id, model.weights)), at


def test_no_cut_point_lies_inside_a_residual_block() -> None:
    points = cuts.cut_points(network("ResNet50"))
    assert "conv3_block1_out" in points
    assert "conv3_block2_1_relu" not in points
    with pytest.raises(InputError, match="'conv3_block2_1_relu' is not a cut point of resnet50"):
        cuts.split(network("ResNet50"), "conv3_block2_1_relu")


@pytest.mark.parametrize(
    ("name", "at", "above"),
    [
        ("MobileNetV2", "block_13_expand_relu", 0.258),
        ("MobileNetV2", "block_16_expand_relu", 0.116),
        ("VGG16", "block4_pool", 0.090),
        ("ResNet50", "conv5_block2_out", 0.056),
        ("EfficientNetV2B0", "block6h_add", 0.017),
    ],
)
def test_the_share_of_flops_above_a_cut(name: str, at: str, above: float) -> None:
    (point,) = [p for p in cuts.describe(network(name, 224)) if p.name == at]
    assert abs(1 - point.flops_below - above) < 0.001
    assert 16_000 < point.bytes_per_image < 452_000
    assert network(name, 224).count_params() * point.parameters_below > 1


def test_cut_points_are_described_shallow_to_deep() -> None:
    points = cuts.describe(network("MobileNetV2"))
    assert [p.flops_below for p in points] == sorted(p.flops_below for p in points)
    assert [p.index for p in points if p.name != "preprocessing"] == sorted(
        p.index for p in points if p.name != "preprocessing"
    )
    by_name = {p.name: p for p in points}
    assert by_name["block_12_add"].block == "block_12"
    assert by_name["images"].flops_below < 1e-3


@pytest.mark.parametrize(
    ("name", "blocks", "first"),
    [
        ("glyph_cnn", 1, "block3_conv1"),
        ("glyph_cnn", 2, "block2_conv1"),
        ("VGG16", 2, "block4_conv1"),
        ("ResNet50", 1, "conv5_block3_1_conv"),
        ("MobileNetV2", 2, "block_16_expand"),
        ("EfficientNetV2B0", 2, "block6h_expand_conv"),
        ("ConvNeXtTiny", 1, "convnext_tiny_stage_3_block_2_depthwise_conv"),
        ("DenseNet121", 2, "conv5_block15_1_conv"),
    ],
)
def test_a_number_of_blocks(name: str, blocks: int, first: str) -> None:
    assert cuts.resolve(network(name), {"blocks": blocks}).trainable[0] == first


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(InputError, match="1 to 3, the number of blocks of this network, got 4"):
        cuts.resolve(network("glyph_cnn"), {"blocks": 4})
    with pytest.raises(InputError, match=r"an index, none or \{blocks: N\}, got"):
        cuts.resolve(network("glyph_cnn"), {"block": 1})


def parameters(variables: list[keras.Variable]) -> int:
    return sum(int(np.prod(v.shape)) for v in variables if "seed" not in v.path)


def test_vgg16_with_a_frozen_base_trains_66954_parameters() -> None:
    body = network("VGG16")
    body.trainable = False
    head = heads.build(heads.Config(units=[128], dropout=0.2), 512, 10)
    assert parameters(heads.join(body, head, "c").trainable_variables) == 66_954


def test_an_mlp_with_all_but_its_last_layer_frozen_trains_330() -> None:
    model = network("mlp")
    cuts.freeze(model, cuts.resolve(model, "dense4").trainable, batch_norm=False)
    assert parameters(model.trainable_variables) == 330


def test_mobilenet_v2_cut_at_index_100() -> None:
    model = network("MobileNetV2")
    cut = cuts.resolve(model, 100)
    assert len(cut.trainable) == 55  # 54 and the pooling
    assert (
        cut.trainable[0]
        == keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3))
        .layers[100]
        .name
    )
    cuts.freeze(model, cut.trainable, batch_norm=False)
    lower, _ = cuts.split(model, cut.at)
    assert not lower.trainable_variables
    assert cut.at == "block_10_project_BN"


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("VGG16", 100, "finetune.cut=100 is not a layer of vgg16: it has the layers 0 to 19"),
        ("VGG16", 18, r"nothing to train.*with trainable weights is 'block5_conv3' \(index 17\)"),
        ("VGG16", "block5", "did you mean 'block5_conv1', 'block5_conv2', 'block5_conv3'"),
        ("VGG16", "blok5_conv1", "did you mean 'block5_conv1'"),
        ("MobileNetV2", "out_relu", "leaves nothing to train"),
        ("MobileNetV2", "Conv_1_bn", "Conv_1_bn leaves nothing to train"),
    ],
)
def test_a_cut_that_cannot_be_names_the_nearest(name: str, cut: str | int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cuts.resolve(network(name), cut)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_only_what_is_above_the_cut_changes(batch_norm: bool) -> None:
    model = network("MobileNetV2")
    cut = cuts.resolve(model, "block_16_expand", batch_norm)
    cuts.freeze(model, cut.trainable, batch_norm)
    before = {w.path: w.numpy() for w in model.weights}
    head = heads.build(heads.Config(), 1280, 2)
    _, upper = cuts.split(model, cut.at)
    trained = heads.join(upper, head, "t")
    trained.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, *upper.input_shape[1:])).astype(np.float32)
    trained.fit(x, rng.integers(2, size=8), epochs=2, verbose=0)
    named = set(cut.trainable)
    moved = {path for w in model.weights for path in [w.path] if (w.numpy() != before[path]).any()}
    assert moved
    assert {path.split("/")[0] for path in moved} <= named
    assert any("moving_mean" in path for path in moved) == batch_norm


def test_a_model_inside_a_model_is_cut_inside(tmp_path: Path) -> None:
    entry = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(4, 3, name="conv_a")(entry)
    inner = keras.Model(entry, keras.layers.Conv2D(4, 3, name="conv_b")(x), name="inner")
    network = keras.applications.MobileNetV2(
        weights=None, include_top=False, input_shape=(64, 64, 3)
    )
    stem = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Rescaling(1 / 255.0), inner])
    clash = keras.Sequential([keras.layers.Conv2D(3, 5, padding="valid", name="conv_a")])
    wide = keras.layers.Conv2DTranspose(3, 9, name="wide")
    outer = keras.Sequential(
        [stem, clash, wide, network, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    outer.build((None, 64, 64, 3))
    outer.save(tmp_path / "nested.keras")
    model = backbones.build(keras_file.Config(path=str(tmp_path / "nested.keras")), 64, 0).model
    points = cuts.cut_points(model)
    assert {"conv_a", "conv_b", "wide", "block_13_expand_relu"} <= set(points)
    assert clash.name in points, "a model whose layers' names are taken stays closed"
    x = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    features = keras.Model(outer.inputs, outer.layers[-2].output)
    expected = features.predict(x, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-7)
    for at in ("conv_a", "block_13_expand_relu"):
        lower, upper = cuts.split(model, at)
        again = upper.predict(lower.predict(x, verbose=0), verbose=0)
        np.testing.assert_allclose(again, expected, rtol=1e-4, atol=1e-7)
    assert cuts.resolve(model, {"blocks": 1}).trainable[0].startswith(("block_16", "Conv_1"))
