"""Repeated fine-tuning gives the same bytes every time, with every kind of input."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from conftest import frozen_part

from pipeline.data.manifest import Manifest
from pipeline.data.tasks.classification import TASK
from pipeline.errors import InputError
from pipeline.features import augmentation
from pipeline.features.store import Config as StoreConfig
from pipeline.features.store import Store
from pipeline.finetuning.finetuner import Finetuner, Tuned
from pipeline.finetuning.settings import Config
from pipeline.networks import backbones, heads, model_file
from pipeline.networks.backbones import glyph_cnn
from pipeline.stages import train_head
from pipeline.storage.outputs import Folders
from pipeline.training import fitting
from pipeline.training.settings import Monitor

MOVED = [{"RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2}}]


@pytest.fixture
def make(repository: Path, cwd: Path) -> Any:
    """A fine-tuner on the default digits, with its own cache and checkpoints."""

    def made(**augment: Any) -> Finetuner:
        body = backbones.build(glyph_cnn.Config(), 8, 0)
        return Finetuner(
            body,
            repository / "outputs" / "prepare",
            Store(StoreConfig()),
            frozen_part(augment=augmentation.Config(**augment)),
        )

    return made


@pytest.fixture
def head(cwd: Path) -> Path:
    """An untrained head, so that every fine-tuning improves it."""
    folder = cwd / "head"
    folder.mkdir()
    keras.utils.set_random_seed(0)
    fresh = heads.build(heads.Config(units=[16], dropout=0.2), 2048, 10)
    model_file.save(fresh, folder / "head.keras")
    fitting.report(
        fitting.Fitted(
            [], 0, TASK.judge(np.arange(2), np.eye(2, dtype=np.float32), Monitor.log_loss)
        ),
        fresh,
        folder,
    )
    return folder


def fit(finetuner: Finetuner, head: Path, **settings: Any) -> tuple[Tuned, list[Any]]:
    """The outcome, and every weight of backbone and head after it."""
    config = Config(**{"epochs": 2, "learning_rate": 1e-3, "cache": "always", **settings})
    tuned = finetuner.fit(config, head, lambda *_: None)
    assert tuned.fitted.best_epoch or config.head_only
    return tuned, [*finetuner._body.model.get_weights(), *tuned.head.get_weights()]


def same(item: list[Any], other: list[Any]) -> bool:
    return all((a == b).all() for a, b in zip(item, other, strict=True))


@pytest.mark.slow
def test_each_time_is_as_good_as_the_first(make: Any, head: Path) -> None:
    trials = [
        {"cut": "block2_conv1", "batch_norm": "train"},
        {"cut": "block3_conv1"},
        {"cut": "none"},
        {"cut": "block2_conv1", "batch_norm": "train", "learning_rate": 1e-4},
        {"cut": "block3_conv1", "weight_decay": 0.1},
        {"cut": "block3_conv1", "weight_decay": 0.01},
        {"cut": "block3_conv1", "label_smoothing": 0.1},
        {"cut": "block3_conv1", "cache": "never"},
        {"cut": "block2_conv1", "batch_norm": "train"},
        {"cut": "block3_conv1", "weight_decay": 0.1},
    ]
    again = make()
    results = []
    for settings in trials:
        tuned, weights = fit(again, head, **settings)
        first, fresh = fit(make(), head, **settings)
        assert same(weights, fresh), settings
        assert tuned.fitted == first.fitted, settings
        results.append(weights)
    assert same(results[0], results[8])
    assert same(results[4], results[9])
    assert not same(results[0], results[3])
    assert not same(results[4], results[5])


def test_a_trace_is_reused_and_only_some_are_kept(
    make: Any, head: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.finetuning.finetuner._KEPT_TRACES", 2)
    finetuner = make()
    fit(finetuner, head, cut="block3_conv1", epochs=1)
    ((model, _),) = finetuner._traced.values()
    traced = model.train_function
    fit(finetuner, head, cut="block3_conv1", epochs=1, learning_rate=1e-5)
    assert model.train_function is traced
    for cut in ("block2_conv1", "block1_conv1"):
        fit(finetuner, head, cut=cut, epochs=1)
    assert len(finetuner._traced) == 2
    assert all(kept is not model for kept, _ in finetuner._traced.values())


@pytest.mark.parametrize("views", [1, 3])
def test_views_give_the_same_with_and_without_the_cache(
    make: Any, head: Path, views: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"cut": "block3_conv1", "epochs": 4, "patience": 4}
    _, cached = fit(make(views=views, layers=MOVED), head, **settings)
    assert "\ncaching activations" in capsys.readouterr().out
    _, uncached = fit(make(views=views, layers=MOVED), head, cache="never", **settings)
    assert "not caching activations" in capsys.readouterr().out
    assert same(cached, uncached)
    without = fit(make(), head, **settings)[1]
    assert same(cached, without) == (views == 1), "one view is the image itself"


def test_fresh_images_are_the_same_in_every_run_and_never_kept(
    make: Any, head: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"cut": "block3_conv1", "cache": "auto"}
    _, item = fit(make(views=0, layers=MOVED), head, **settings)
    assert "augment.views=0 creates new images in every epoch" in capsys.readouterr().out
    assert same(item, fit(make(views=0, layers=MOVED), head, **settings)[1])
    assert not same(item, fit(make(), head, **settings)[1])
    with pytest.raises(InputError, match=r"finetune\.cache=always needs images that repeat"):
        fit(make(views=0, layers=MOVED), head, cut="block3_conv1")


def test_float16_takes_half_and_says_so(
    make: Any, head: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuner = make()
    _, exact = fit(finetuner, head, cut="block3_conv1")
    whole = sum(entry.size for entry in finetuner._store.entries())
    _, rounded = fit(finetuner, head, cut="block3_conv1", precision="float16")
    half = sum(entry.size for entry in finetuner._store.entries()) - whole
    assert abs(half / whole - 0.5) < 0.01
    assert "rounded to float16" in capsys.readouterr().out
    start = [*make()._body.model.get_weights()]
    update = np.concatenate([(e - s).ravel() for e, s in zip(exact, start, strict=False)])
    error = np.concatenate([(e - r).ravel() for e, r in zip(exact, rounded, strict=False)])
    share = np.linalg.norm(error[: len(update)]) / np.linalg.norm(update)
    assert 0 < share < 0.3
    # What is computed must not depend on what happens to be stored.
    other = make()
    fit(other, head, cut="block2_conv1", precision="float16")
    deeper = fit(other, head, cut="block3_conv1", precision="float16")[1]
    assert same(rounded, deeper)


def test_a_head_of_another_network_is_told(make: Any, tmp_path: Path) -> None:
    head = tmp_path / "other"
    head.mkdir()
    keras.Sequential([keras.Input((7,)), keras.layers.Dense(2)]).save(head / "head.keras")
    with pytest.raises(InputError, match="takes 7 features, but glyph_cnn returns 2048"):
        make().fit(Config(cut="none"), head, lambda *_: None)


def test_the_test_split_is_never_looked_at(repository: Path, cwd: Path) -> None:
    prepared, features = cwd / "prepare", cwd / "extract_features"
    for folder in (prepared, features):
        shutil.copytree(repository / "outputs" / folder.name, folder)
    losses = []
    for spoiled in (False, True):
        if spoiled:
            test = Manifest(prepared).indices("test")
            for path in (prepared / "images.npy", features / "features.npy"):
                array = np.load(path)
                array[test] = 255 - array[test]
                np.save(path, array)
        body = backbones.build(glyph_cnn.Config(), 8, 0)
        out = cwd / f"head{spoiled}"
        out.mkdir()
        read = Folders(out, prepared, features)
        settings = train_head.Config(epochs=5)
        train_head.run(settings, heads.Config(), 0, 2, read, lambda *_: None)
        finetuner = Finetuner(
            body, prepared, Store(StoreConfig(), cwd / f"store{spoiled}"), frozen_part()
        )
        tuned, _ = fit(finetuner, out, cut="block3_conv1", label_smoothing=0.0)
        losses.append([entry["val_loss"] for entry in tuned.fitted.curve])
    assert losses[0] == losses[1]
