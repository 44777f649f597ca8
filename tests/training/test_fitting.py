"""Training is a function of its inputs, even if it is killed midway."""

import gc
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from pipeline.data.tasks import calibration
from pipeline.data.tasks.classification import TASK
from pipeline.errors import InputError
from pipeline.networks import heads
from pipeline.settings import check
from pipeline.training import fitting, interpolation, optimizer
from pipeline.training.examples import Examples
from pipeline.training.settings import Monitor, Training

CONSTANTS = ("warmup", "cosine", "clip_norm", "weight_decay", "lowest_rate", "interpolate")


def examples(seed: int = 0, count: int = 70) -> Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(3, size=count)
    inputs = rng.normal(size=(count, 8)).astype(np.float32) + np.eye(3, 8, dtype=np.float32)[labels]
    return Examples(inputs, np.arange(count), labels)


def training(**settings: Any) -> Training:
    """Settings, some of them constants of another class."""
    constants = {key: settings.pop(key) for key in list(settings) if key in CONSTANTS}
    return type("Other", (Training,), constants)(**settings)


def trained(work: Path, seed: int = 0, **settings: object) -> tuple[keras.Model, fitting.Fitted]:
    keras.utils.set_random_seed(seed)
    model = heads.build(heads.Config(units=[16], dropout=0.5), 8, 3)
    config = training(**{"epochs": 6, "learning_rate": 0.01, **settings})
    log: list[int] = []
    fitted = fitting.fit(
        model,
        examples(),
        examples(1),
        config,
        fitting.Session(seed, work, lambda _, epoch: log.append(epoch)),
    )
    assert log == [entry["epoch"] for entry in fitted.curve]
    return model, fitted


def same(single: keras.Model, other: keras.Model) -> bool:
    pairs = zip(single.get_weights(), other.get_weights(), strict=True)
    return all((a == b).all() for a, b in pairs)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    single, curve = trained(tmp_path / "a")
    two, again = trained(tmp_path / "b")
    three, _ = trained(tmp_path / "c", seed=1)
    assert same(single, two)
    assert curve == again
    assert not same(single, three)
    assert not list(tmp_path.glob("[a-z]*")), "the checkpoints are removed at the end"


def test_a_training_lets_go_of_its_examples(tmp_path: Path) -> None:
    lent = examples()
    gone = weakref.ref(lent.inputs)
    model = heads.build(heads.Config(), 8, 3)
    config = Training(epochs=2)
    fitting.fit(model, lent, lent, config, fitting.Session(0, tmp_path, lambda *_: None))
    del lent
    gc.collect()
    assert gone() is None


def test_the_best_epoch_is_kept_and_patience_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, fitted = trained(tmp_path, learning_rate=0.05, epochs=50, patience=3)
    losses = [entry["val_score"] for entry in fitted.curve]
    assert fitted.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == fitted.best_epoch + 3
    message = f"stopped after {len(losses)} of 50 epochs: the last 3 brought no improvement"
    assert message in capsys.readouterr().out
    data = examples(1)
    actual = model.predict(data.inputs, verbose=0)
    kept = TASK.judge(data.targets, actual, Monitor.log_loss)
    assert abs(kept["val_score"] - min(losses)) < 1e-4


def test_without_patience_every_epoch_runs(tmp_path: Path) -> None:
    _, fitted = trained(tmp_path, learning_rate=0.5, epochs=30, patience=None)
    assert len(fitted.curve) == 30


def test_the_rate_rises_and_falls_step_by_step() -> None:
    settings = training(cosine=True, warmup=0.2, learning_rate=2.0)
    rates = [optimizer.rate(settings, step, 10) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.1
    constant = training(warmup=0.2, learning_rate=2.0)
    assert [optimizer.rate(constant, step, 10) for step in (0, 1, 5, 9)] == [1.0, 2.0, 2.0, 2.0]


def test_overconfidence_is_not_what_a_model_is_judged_by() -> None:
    """An accurate but overconfident model has the better score and the worse loss."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=500)
    logits = rng.normal(size=(500, 3)) + 2 * np.eye(3)[labels]

    def judged(scale: float, good: int, monitor: Monitor = Monitor.log_loss) -> dict[str, float]:
        mixed = np.where(np.arange(500)[:, None] < good, logits, logits[:, [1, 2, 0]])
        values = np.exp(scale * mixed)
        probabilities = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
        return TASK.judge(labels, probabilities, monitor)

    modest, sure = judged(1.0, 450), judged(6.0, 480)
    assert sure["val_accuracy"] > modest["val_accuracy"]
    assert sure["val_loss"] > modest["val_loss"]
    assert sure["val_score"] < modest["val_score"]
    for monitor in (Monitor.accuracy, Monitor.macro_f1):
        better, worse = judged(6.0, 480, monitor), judged(1.0, 450, monitor)
        assert better["val_score"] < worse["val_score"]
        same_answers = judged(1.0, 480, monitor)
        assert same_answers["val_score"] == pytest.approx(better["val_score"], abs=1e-3)
    assert calibration.temperature(labels, np.eye(3, dtype=np.float32)[labels]) > 0.05


def test_weights_between_start_and_end_are_kept_if_better(tmp_path: Path) -> None:
    """After overfitting a few images, the best model lies in between."""
    keras.utils.set_random_seed(0)
    model = heads.build(heads.Config(), 8, 3)
    few, many = examples(2, 12), examples(1, 300)
    fast = {"learning_rate": 0.3, "epochs": 1, "batch_size": 12}
    start = model.get_weights()

    def fit(name: str, interpolate: bool) -> fitting.Fitted:
        settings = training(interpolate=interpolate, **fast)
        session = fitting.Session(0, tmp_path / name, lambda *_: None)
        return fitting.fit(model, few, many, settings, session)

    fitted = fit("a", True)
    assert fitted.share in (*interpolation.SHARES, 1.0)
    kept = TASK.judge(many.targets, model.predict(many.inputs, verbose=0), Monitor.log_loss)
    assert kept["val_score"] == pytest.approx(fitted.best["val_score"], abs=1e-5)
    model.set_weights(start)
    whole = fit("b", False)
    assert fitted.best["val_score"] <= whole.best["val_score"]
    assert (fitted.share < 1) == (fitted.best["val_score"] < whole.best["val_score"])


def test_learning_that_only_hurts_leaves_the_start(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    fresh = heads.build(heads.Config(units=[16], dropout=0.5), 8, 3)
    model, fitted = trained(tmp_path, learning_rate=100.0, patience=2)
    assert fitted.best_epoch == 0
    assert same(model, fresh)


def test_a_loss_that_is_no_number_stops(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = heads.build(heads.Config(), 8, 3)
    good, bad = examples(1), examples()
    bad.inputs[3] = np.nan
    with pytest.raises(InputError, match=r"the loss was nan in epoch 1: lower the learn"):
        fitting.fit(model, bad, good, Training(), fitting.Session(0, tmp_path / "w", print))
    assert not (tmp_path / "w").exists(), "nothing is left to go on with"


def test_settings_reach_the_training(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path)
    for settings in (
        {"label_smoothing": 0.2},
        {"class_weight": "balanced"},
        {"weight_decay": 0.5},
        {"batch_size": 7},
        {"cosine": True},
        {"warmup": 0.5},
        {"clip_norm": 0.01},
        {"lowest_rate": 0.5},
    ):
        assert not same(plain, trained(tmp_path, **settings)[0]), settings


RECIPE = {
    "epochs": 40,
    "patience": None,
    "cosine": True,
    "warmup": 0.1,
    "clip_norm": 1.0,
    "weight_decay": 0.01,
    "label_smoothing": 0.1,
}
KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from pipeline.networks import runtime
runtime.configure(0, 2)
from test_fitting import RECIPE, trained
model, _ = trained(Path({work!r}), **RECIPE)
model.save_weights({out!r})
"""


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    expected, _ = trained(tmp_path / "whole", **RECIPE)
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


@pytest.mark.slow
def test_two_that_need_the_same_training_both_get_it(tmp_path: Path) -> None:
    work, outs = tmp_path / "work", [tmp_path / f"{n}.weights.h5" for n in (1, 2)]
    tests = str(Path(__file__).parent)
    codes = [KILLED.format(tests=tests, work=str(work), out=str(out)) for out in outs]
    children = [subprocess.Popen([sys.executable, "-c", code]) for code in codes]
    assert [child.wait() for child in children] == [0, 0]
    assert outs[0].read_bytes() == outs[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "finetune.learning_rate must be above 0, got 0.0"),
        ({"epochs": 0}, "finetune.epochs must be at least 1, got 0"),
        ({"batch_size": -1}, "finetune.batch_size must be at least 1, got -1"),
        ({"label_smoothing": 1.0}, "finetune.label_smoothing must be at least 0 and below 1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(Training(**settings), "finetune")
