"""Training is a function of its inputs, also when it is killed half-way."""

import gc
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.networks import heads
from pipeline.settings import check
from pipeline.training import fitting
from pipeline.training.examples import Examples
from pipeline.training.settings import Training


def examples(seed: int = 0, count: int = 70) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    inputs = rng.normal(size=(count, 8)).astype(np.float32) + np.eye(3, 8, dtype=np.float32)[labels]
    return Examples(inputs, np.arange(count), labels)


def trained(work: Path, seed: int = 0, **settings: object) -> tuple[keras.Model, fitting.Fitted]:
    keras.utils.set_random_seed(seed)
    model = heads.build(heads.Config(units=[16], dropout=0.5), 8, 3)
    config = Training(**{"epochs": 6, "learning_rate": 0.01, **settings})
    log: list[int] = []
    fitted = fitting.fit(
        model,
        examples(),
        examples(1),
        config,
        seed=seed,
        work=work,
        log=lambda _, epoch: log.append(epoch),
    )
    assert log == [entry["epoch"] for entry in fitted.curve]
    return model, fitted


def same(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all((a == b).all() for a, b in pairs)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    one, curve = trained(tmp_path / "a")
    two, again = trained(tmp_path / "b")
    three, _ = trained(tmp_path / "c", seed=1)
    assert same(one, two)
    assert curve == again
    assert not same(one, three)
    assert not list(tmp_path.glob("[a-z]*")), "the checkpoints are removed at the end"


def test_a_training_lets_go_of_its_examples(tmp_path: Path) -> None:
    lent = examples()
    gone = weakref.ref(lent.inputs)
    model = heads.build(heads.Config(), 8, 3)
    config = Training(epochs=2)
    fitting.fit(model, lent, lent, config, seed=0, work=tmp_path, log=lambda *_: None)
    del lent
    gc.collect()
    assert gone() is None


def test_the_best_epoch_is_kept_and_patience_stops(tmp_path: Path) -> None:
    model, fitted = trained(tmp_path, learning_rate=0.05, epochs=50, patience=3)
    losses = [entry["val_loss"] for entry in fitted.curve]
    assert fitted.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == fitted.best_epoch + 3
    data = examples(1)
    found = model.predict(data.inputs, verbose=0)
    loss = -np.log(found[np.arange(len(found)), data.labels]).mean()
    assert abs(loss - min(losses)) < 1e-4


def test_learning_that_only_hurts_leaves_the_start(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    fresh = heads.build(heads.Config(units=[16], dropout=0.5), 8, 3)
    model, fitted = trained(tmp_path, learning_rate=100.0, patience=2)
    assert fitted.best_epoch == 0
    assert same(model, fresh)


def test_settings_reach_the_training(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path)
    for settings in (
        {"label_smoothing": 0.2},
        {"class_weight": "balanced"},
        {"weight_decay": 0.5},
        {"batch_size": 7},
    ):
        assert not same(plain, trained(tmp_path, **settings)[0]), settings


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from pipeline.networks import runtime
runtime.configure(0, 2)
from test_fitting import trained
model, _ = trained(Path({work!r}), epochs=40, patience=40)
model.save_weights({out!r})
"""


def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    expected, _ = trained(tmp_path / "whole", epochs=40, patience=40)
    work, out = tmp_path / "work", tmp_path / "end.weights.h5"
    code = KILLED.format(tests=str(Path(__file__).parent), work=str(work), out=str(out))
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (work / "last.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert (work / "last.npz").exists(), "killed in mid-training"
    assert not out.exists(), "killed before the end"
    with np.load(work / "last.npz") as saved:
        assert 0 < int(saved["state"].item().count('"epoch"')) < 40
    subprocess.run([sys.executable, "-c", code], check=True)
    model = heads.build(heads.Config(units=[16], dropout=0.5), 8, 3)
    model.load_weights(out)
    assert same(model, expected)


def test_two_that_need_the_same_training_both_get_it(tmp_path: Path) -> None:
    work, outs = tmp_path / "work", [tmp_path / f"{n}.weights.h5" for n in (1, 2)]
    tests = str(Path(__file__).parent)
    codes = [KILLED.format(tests=tests, work=str(work), out=str(out)) for out in outs]
    children = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    assert [child.wait() for child in children] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"learning_rate": 0.0}, "finetune.learning_rate must be above 0, got 0.0"),
        ({"epochs": 0}, "finetune.epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "finetune.batch_size must be at least 1, got -1"),
        ({"label_smoothing": 1.0}, "finetune.label_smoothing must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "finetune.weight_decay must be at least 0"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        check(Training(**settings), "finetune")
