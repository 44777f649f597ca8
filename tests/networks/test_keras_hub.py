"""KerasHub networks: their cut points, and the whole pipeline, offline."""

import json
import shutil
import sys
from pathlib import Path

import hub_presets
import numpy as np
import pytest
from conftest import Run
from hub_presets import FAMILIES, SIDE

from pipeline.errors import InputError
from pipeline.features import cuts
from pipeline.networks import backbones
from pipeline.networks.backbones import keras_hub
from pipeline.networks.scaling import NAMED

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("keras_hub")]

BLOCKS = {
    "vit": ["transformer_block_1", "transformer_block_2", "transformer_block_3"],
    "deit": ["transformer_block_1", "transformer_block_2", "transformer_block_3"],
    "dinov2": ["layers_0", "layers_1", "layers_2"],
    "dinov3": ["layers_0", "layers_1", "layers_2"],
    "siglip": [f"sig_lip_vision_encoder_encoder_block_{n}" for n in range(3)],
    "efficientnet": ["block2b_add"],
    "mobilenet_v3": ["block_1_0", "block_1_1", "block_2_0", "block_2_1"],
    "resnet": ["stack0_block0_out", "stack1_block0_out"],
    "mit": ["hierarchical_encoder_0_0", "hierarchical_encoder_1_0"],
    "swin": ["stage_0_blocks_0", "stage_1_blocks_0"],
}


@pytest.fixture(scope="module", params=FAMILIES)
def preset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub_presets.save(request.param, tmp_path_factory.mktemp("preset") / request.param)


def config(preset: Path, **settings: object) -> keras_hub.Config:
    return keras_hub.Config(use="keras_hub", path=str(preset), preset=str(preset), **settings)


def images(count: int = 3) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3))
    return noise.astype(np.float32)


def test_a_family_is_cut_between_its_blocks(preset: Path) -> None:
    body = backbones.build(config(preset), SIDE, 0).model
    points = cuts.cut_points(body)
    assert set(BLOCKS[preset.name]) <= set(points)
    batch = images()
    whole = body(batch, training=False).numpy()
    assert whole.ndim == 2
    assert whole.std(axis=0).max() > 0
    for at in points:
        lower, upper = cuts.split(body, at)
        halves = upper(lower(batch, training=False), training=False)
        assert (halves.numpy() == whole).all(), at


@pytest.mark.parametrize("preset", ["vit"], indirect=True)
def test_work_inside_a_block_counts(preset: Path) -> None:
    body = backbones.build(config(preset), SIDE, 0).model
    below = {point.name: point.flops_below for point in cuts.describe(body)}
    first, second, third = (below[name] for name in BLOCKS["vit"])
    assert second - first == pytest.approx(third - second)
    embedding = first - below["preprocessing"] - (second - first)
    width, inner = 16, 32
    block, patches = 4 * width**2 + 2 * width * inner, 3 * 8 * 8 * width
    assert (second - first) / embedding == pytest.approx(block / patches, rel=0.1)
    assert below["preprocessing"] < 0.05


def test_scaling_is_the_presets_own(preset: Path) -> None:
    body = backbones.build(config(preset), SIDE, 0).model
    import keras_hub as hub

    network = hub.models.Backbone.from_preset(str(preset))
    network = getattr(network, "vision_encoder", network)
    batch = images()
    scaled = batch * np.array(hub_presets.SCALE, np.float32) + np.array(hub_presets.OFFSET)
    expected = np.asarray(network(scaled.astype(np.float32), training=False))
    if expected.ndim == 4:
        expected = expected.mean(axis=(1, 2))
    elif preset.name == "swin":
        expected = expected.mean(axis=1)
    elif expected.ndim == 3:
        expected = expected[:, 0]
    np.testing.assert_allclose(body(batch, training=False), expected, rtol=1e-3, atol=1e-5)


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    folder = hub_presets.save_as_hugging_face_does(tmp_path / "small")
    body = backbones.build(config(folder), SIDE, 0).model
    assert {"layers_0", "layers_1", "layernorm"} <= set(cuts.cut_points(body))
    lower, upper = cuts.split(body, "preprocessing")
    batch = images()
    expected = (batch / 255 - hub_presets.MEAN) / hub_presets.DEVIATION
    np.testing.assert_allclose(lower(batch), expected, atol=1e-5)
    token = body(batch, training=False).numpy()
    assert (upper(lower(batch)).numpy() == token).all()
    assert token.std(axis=0).min() > 0
    assert backbones.scalings(config(folder), SIDE) == ((), "")
    (folder / "preprocessor_config.json").unlink()
    assert backbones.scalings(config(folder), SIDE) == (tuple(NAMED), ""), "they are tried"


@pytest.mark.parametrize("preset", ["dinov2"], indirect=True)
def test_what_the_features_are_can_be_chosen(preset: Path) -> None:
    token, patches = (
        backbones.build(config(preset, pool=keras_hub.Pool(pool)), SIDE, 0)
        for pool in ("token", "patches")
    )
    assert token.taken == "the token of the whole image"
    assert patches.taken == "the mean of its patches"
    lower, _ = cuts.split(token.model, "dinov2_backbone_layernorm")
    tokens = lower(images(), training=False).numpy()
    np.testing.assert_allclose(token.model(images(), training=False), tokens[:, 0])
    mean = tokens[:, 3:].mean(axis=1)
    np.testing.assert_allclose(patches.model(images(), training=False), mean, atol=1e-6)


@pytest.mark.parametrize("preset", ["dinov2", "dinov3"], indirect=True)
def test_places_fit_other_sizes(preset: Path) -> None:
    body = backbones.build(config(preset), 48, 0).model
    noise = np.random.default_rng(1).integers(0, 256, (2, 48, 48, 3)).astype(np.float32)
    assert np.isfinite(body(noise, training=False).numpy()).all()
    with pytest.raises(InputError, match=r"a multiple of 8, .* got 50: set 48 or 56"):
        backbones.build(config(preset), 50, 0)


@pytest.mark.parametrize("preset", ["vit"], indirect=True)
def test_what_cannot_be_a_preset(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be 32 for .*, got 64"):
        backbones.build(config(preset), 64, 0)
    assert keras_hub.sides(config(preset)) == (SIDE, SIDE)
    with pytest.raises(InputError, match="no such folder"):
        backbones.build(config(tmp_path / "nowhere"), SIDE, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot be loaded"):
        backbones.build(config(tmp_path / "empty"), SIDE, 0)
    bare = shutil.copytree(preset, tmp_path / "bare")
    for name in ("preprocessor.json", "image_converter.json"):
        (bare / name).unlink(missing_ok=True)
    assert backbones.scalings(config(bare), SIDE) == (tuple(NAMED), ""), "they are tried"
    assert backbones.build(config(bare, scale=1 / 255), SIDE, 0).name == "bare"


@pytest.mark.parametrize("preset", ["swin", "siglip"], indirect=True)
def test_no_token_where_there_is_none(preset: Path) -> None:
    requested = config(preset, pool=keras_hub.Pool.token)
    if preset.name == "siglip":
        assert backbones.build(requested, SIDE, 0).taken == "its own pooled output"
        return
    with pytest.raises(InputError, match=r"set backbone\.pool=patches"):
        backbones.build(requested, SIDE, 0)


def test_content_counts_and_not_its_place(preset: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(preset, tmp_path / preset.name)
    assert config(moved).shaping() == config(preset).shaping()
    message = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps({**message, "further": 1}))
    assert config(moved).shaping() != config(preset).shaping()


def test_a_family_through_the_whole_pipeline(
    preset: Path, project: Path, run: Run, image_folder: Path
) -> None:
    shutil.copytree(preset, project / "preset")
    words = ["tracking.enabled=false", "backbone.use=keras_hub", "backbone.path=preset"]
    words += ["data.use=folder", f"data.path={image_folder}"]
    words += ["prepare.train_per_class=null", "prepare.val_per_class=null"]
    words += ["backbone.preset=./preset", f"prepare.image_size={SIDE}", "finetune.epochs=1"]
    words += ["finetune.cut={blocks: 1}", "train_head.epochs=3"]
    for stage in ("prepare", "extract_features", "train_head", "finetune"):
        done = run(project, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
    weights = (project / "outputs/finetune/model.keras").read_bytes()
    for cache in ("never", "always"):
        again = run(
            project,
            sys.executable,
            "-m",
            "pipeline",
            "finetune",
            *words,
            "forward.engine=keras",
            f"finetune.cache={cache}",
        )
        assert again.returncode == 0, again.stderr
        kept = (project / "outputs/finetune/model.keras").read_bytes()
        if cache == "always":
            assert kept == weights, "cached and plain training give the same bytes"
        weights = kept
    done = run(project, sys.executable, "-m", "pipeline", "evaluate", *words)
    assert done.returncode == 0, done.stderr
    assert "does not run" not in done.stdout
    exported = run(project, sys.executable, "-m", "pipeline", "export", "saved_model")
    assert exported.returncode == 0, exported.stderr


@pytest.mark.parametrize("preset", ["vit", "siglip"], indirect=True)
def test_the_table_of_cuts(preset: Path, project: Path, run: Run) -> None:
    shutil.copytree(preset, project / "preset")
    words = ["backbone.use=keras_hub", "backbone.path=preset", "backbone.preset=./preset"]
    words += [f"prepare.image_size={SIDE}", "tracking.enabled=false"]
    done = run(project, sys.executable, "-m", "pipeline", "prepare", *words)
    assert done.returncode == 0, done.stderr
    batch = run(project, sys.executable, "-m", "pipeline", "cuts", *words)
    assert all(block in batch.stdout for block in BLOCKS[preset.name]), batch.stderr
