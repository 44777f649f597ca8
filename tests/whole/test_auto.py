"""Values of `auto`: derived from the data, printed with the reason, recorded; set values win."""

import json
import sys
from pathlib import Path

import keras
import pytest
from conftest import Run
from mlflow import MlflowClient

from pipeline.data import tasks
from pipeline.features import augmentation, cuts
from pipeline.finetuning import recipe
from pipeline.finetuning.settings import Config
from pipeline.intake import sizing


@pytest.mark.parametrize(
    ("images", "epochs"), [(64, 100), (192, 34), (668, 10), (20_000, 10), (80_000, 5), (10**7, 3)]
)
def test_few_images_are_seen_often_and_many_less_often(images: int, epochs: int) -> None:
    actual = recipe.epochs(images, 32)
    assert actual.value == epochs
    assert str(images) in actual.reason


def test_the_rate_goes_with_the_square_root_of_the_batch() -> None:
    assert recipe.learning_rate(32, 1).value == 4e-4
    assert recipe.learning_rate(128, 1).value == 8e-4


@pytest.mark.parametrize(
    ("shorter", "side"), [([32] * 5, 160), ([170, 170, 4000], 192), ([371] * 3, 224), ([], 224)]
)
def test_images_are_brought_to_a_side_that_keeps_what_they_show(
    shorter: list[int], side: int
) -> None:
    assert sizing.fitting(shorter).value == side
    assert sizing.fitting([5], least_px=4, most_px=32).value == 32


@pytest.mark.parametrize(("images", "views"), [(500, 4), (5_000, 2), (50_000, 1)])
def test_few_images_get_more_views(images: int, views: int) -> None:
    layers = augmentation.Config(layers=[{"RandomFlip": {}}])
    assert layers.derive(images)[0].count == views
    assert augmentation.Config(layers=layers.layers, views=3).derive(images)[1] == {}
    assert augmentation.Config().derive(images)[0].count == 1


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "VGG16", "EfficientNetV2B0"])
def test_the_cut_leaves_most_of_the_work_above(name: str) -> None:
    model = getattr(keras.applications, name)(
        include_top=False, weights=None, pooling="avg", input_shape=(64, 64, 3)
    )
    chosen = recipe.automatic_cut(model, batch_norm=False)
    at = cuts.resolve(model, str(chosen.value)).at
    (point,) = [item for item in cuts.describe(model) if item.name == at]
    low, high = recipe.BETWEEN
    assert low <= point.flops_below <= high
    assert f"{point.flops_below:.0%}" in chosen.reason


def test_a_network_with_nothing_in_between_is_cut_nearest() -> None:
    entry = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 1, name="small")(entry)
    x = keras.layers.Conv2D(400, 3, padding="same", name="large")(x)
    model = keras.Model(entry, keras.layers.GlobalAveragePooling2D()(x))
    assert recipe.automatic_cut(model, batch_norm=False).value in ("small", "large")


@pytest.mark.parametrize(
    ("count", "images", "easy"), [(0, 35, True), (6, 317, True), (7, 317, False), (1, 35, False)]
)
def test_a_head_that_is_hardly_ever_wrong_gets_a_high_cut(
    count: int, images: int, easy: bool, tmp_path: Path
) -> None:
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(64, 64, 3)
    )
    accuracy = {"val_accuracy": 1 - count / images}
    (tmp_path / "summary.json").write_text(json.dumps(accuracy))
    errors = recipe.Errors.of(tmp_path, images)
    settings, derived = recipe.derive(Config(), 1000, model, errors)
    at = cuts.resolve(model, settings.cut).at
    (point,) = [item for item in cuts.describe(model) if item.name == at]
    low, high = recipe.HIGH if easy else recipe.BETWEEN
    assert low <= point.flops_below <= high
    reason = derived["finetune.cut"].reason
    assert f"the head is wrong on {count} of {images} validation images" in reason
    assert f"at most {100 * count / images:.1f} points to gain there" in reason
    assert recipe.derive(Config(cut="Conv_1"), 1000, model, errors)[0].cut == "Conv_1"


def test_only_a_length_that_is_chosen_ends_early() -> None:
    model = keras.Model()
    assert recipe.derive(Config(cut="x"), 1000, model)[0].patience == recipe.LEAST_PATIENCE
    assert recipe.derive(Config(cut="x"), 100, model)[0].patience == 13
    assert recipe.derive(Config(cut="x", patience=2), 100, model)[0].patience == 2
    assert recipe.derive(Config(cut="x", epochs=30), 100, model)[0].patience is None


@pytest.mark.parametrize(("count", "patience"), [(0, 13), (5, 13), (14, 35), (20, 50), (60, 50)])
def test_the_more_often_the_head_is_wrong_the_longer_training_waits(
    count: int, patience: int
) -> None:
    errors = recipe.Errors(count / 100, "")
    assert recipe.derive(Config(cut="x"), 100, keras.Model(), errors)[0].patience == patience


def test_a_head_that_explains_little_of_numbers_lets_training_finish(tmp_path: Path) -> None:
    for r2, patience in ((0.19, 50), (0.95, 13)):
        (tmp_path / "summary.json").write_text(json.dumps({"val_r2": r2}))
        errors = recipe.Errors.of(tmp_path, 300)
        assert errors.text == f"the head leaves {1 - r2:.0%} of the variance unexplained"
        assert recipe.derive(Config(cut="x"), 100, keras.Model(), errors)[0].patience == patience


@pytest.mark.parametrize(
    ("name", "rate"), [("classification", 4e-4), ("multilabel", 1.6e-3), ("regression", 1.6e-3)]
)
def test_each_task_has_its_rate(name: str, rate: float) -> None:
    settings, derived = recipe.derive(
        Config(cut="x"), 1000, keras.Model(), rate=tasks.named(name).rate
    )
    assert settings.learning_rate == rate == derived["finetune.learning_rate"].value


def test_a_value_given_wins() -> None:
    given = Config(cut="x", epochs=3, learning_rate=0.1)
    model = keras.Model()
    assert recipe.derive(given, 100, model) == (given, {})


@pytest.mark.slow
def test_runs_say_what_was_used(clone: Path, run: Run) -> None:
    words = ["finetune.cut=auto", "finetune.learning_rate=auto", "finetune.epochs=auto"]
    done = run(clone, sys.executable, "-m", "pipeline", "finetune", *words)
    assert done.returncode == 0, done.stderr
    derived = json.loads((clone / "outputs" / "finetune" / "derived.json").read_text())
    assert set(derived) == {word.partition("=")[0] for word in words}
    for name, item in derived.items():
        assert f"{name}={item['value']}: {item['reason']}" in done.stdout
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    (parent,) = client.search_runs(
        ["1"],
        f"params.`finetune.epochs` = '{derived['finetune.epochs']['value']}' "
        "and tags.`pipeline.state` != ''",
    )
    child = client.get_run(parent.data.tags["run.finetune"])
    for actual in (parent, child):
        assert actual.data.params["finetune.cut"] == derived["finetune.cut"]["value"]
        assert actual.data.tags["cut"] == derived["finetune.cut"]["value"]
    for name in ("evaluate", "report"):
        done = run(clone, sys.executable, "-m", "pipeline", name, *words)
        assert done.returncode == 0, done.stderr
    page = (clone / "outputs" / "report.html").read_text()
    assert f"trains from {derived['finetune.cut']['value']} on" in page
    assert derived["finetune.epochs"]["reason"] in page


def test_prepare_derives_the_side(clone: Path, run: Run) -> None:
    done = run(clone, sys.executable, "-m", "pipeline", "prepare", "prepare.image_size=auto")
    assert done.returncode == 0, done.stderr
    assert "the shorter side of the images is 8 px" in done.stdout
