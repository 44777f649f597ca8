"""The gate's rules, on constructed probabilities."""

import numpy as np
import pytest

from pipeline.data.predictions import Predictions
from pipeline.data.tasks import Task, classification, multilabel, regression
from pipeline.errors import InputError
from pipeline.release import gate
from pipeline.sections import Promote
from pipeline.settings import check

CLASSES = ["ant", "bee", "wasp"]


def answers(labels: np.ndarray, wrong: int) -> Predictions:
    """Sure of the label, but of the next class for the first `wrong` images."""
    message = labels.copy()
    message[:wrong] = (message[:wrong] + 1) % 3
    chances = (np.eye(3, dtype=np.float32)[message] * 0.88 + 0.04).astype(np.float32)
    names, decided = ([CLASSES[place] for place in places] for places in (labels, message))
    paths = tuple(f"{n}.png" for n in range(len(labels)))
    return Predictions(paths, names, decided, classification.TASK, CLASSES, chances)


def with_classes(classes: list[str], task: Task = classification.TASK) -> Predictions:
    return Predictions((), [], [], task, classes, np.zeros((0, len(classes)), np.float32))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, 600)


def judge(labels: np.ndarray, wrong: int, champion: int | None, **settings: object) -> list:
    config = Promote(**{"max_calibration_error": None, "min_recall": None, **settings})
    check(config, "promote")
    candidate = answers(labels, wrong)
    verdicts = gate.limits(config, candidate)
    if champion is None:
        return verdicts
    other = answers(labels, champion)
    return [gate.not_worse(config, candidate, other, seed=0), *verdicts]


def test_no_class_of_the_champion_is_lost() -> None:
    assert gate.keeps_classes(with_classes(["a", "b"]), with_classes(["b", "a"])).holds
    more = gate.keeps_classes(with_classes(["a", "b", "c"]), with_classes(["a", "b"]))
    assert (more.holds, more.result) == (True, "all 2, and 1 new")
    other = gate.keeps_classes(with_classes(["a"]), with_classes(["a"], multilabel.TASK))
    assert (other.holds, other.result[:35]) == (False, "multilabel became classification: s")
    gone = gate.keeps_classes(with_classes(list("0123456789")), with_classes(["ants", "bees"]))
    assert not gone.holds
    assert gone.result.startswith("ants, bees are missing: set promote.name")


def test_the_whole_interval_has_to_be_within_the_margin(labels: np.ndarray) -> None:
    (better,) = judge(labels, wrong=10, champion=60)
    assert better.holds
    assert better.result.startswith("+0.0833 (95 % CI +0.0")
    (same,) = judge(labels, wrong=30, champion=30)
    assert same.holds
    (worse,) = judge(labels, wrong=60, champion=10)
    assert not worse.holds
    # 4 more mistakes in 600 are 0.67 points, but the interval reaches beyond 1 point.
    (perhaps,) = judge(labels, wrong=34, champion=30, margin=0.01)
    assert not perhaps.holds
    (allowed,) = judge(labels, wrong=34, champion=30, margin=0.05)
    assert allowed.holds


def test_where_less_is_better(labels: np.ndarray) -> None:
    for metric in ("log_loss", "brier"):
        (better,) = judge(labels, wrong=10, champion=60, metric=metric)
        (worse,) = judge(labels, wrong=60, champion=10, metric=metric)
        assert better.holds, metric
        assert not worse.holds, metric


def test_floors_hold_without_a_champion_too(labels: np.ndarray) -> None:
    assert judge(labels, wrong=0, champion=None) == []
    (calibration,) = judge(labels, wrong=0, champion=None, max_calibration_error=0.05)
    assert (calibration.result, calibration.holds) == ("0.0800", False)
    labels[:100] = 1
    (recall,) = judge(labels, wrong=100, champion=None, min_recall=0.9)
    expected = (labels[100:] == 1).sum() / (labels == 1).sum()
    assert recall.result == f"{expected:.4f} (bee)"
    assert not recall.holds
    (alone,) = judge(np.zeros(9, dtype=np.int64), wrong=0, champion=None, min_recall=1.0)
    assert alone.holds, "classes without an image have no recall"


def test_rules_about_classes_do_not_apply_to_numbers() -> None:
    numbers = np.arange(40, dtype=np.float32)[:, None]
    texts = [str(value) for value in numbers[:, 0]]
    task, paths = regression.TASK, tuple(texts)
    exact = Predictions(paths, texts, texts, task, ["price"], numbers)
    verdicts = gate.limits(Promote(), exact)
    assert [item.holds for item in verdicts] == [True, True]
    assert verdicts[0].result == "does not apply: numbers are predicted"
    off = [str(value + 3) for value in numbers[:, 0]]
    worse = Predictions(paths, texts, off, task, ["price"], numbers + 3)
    assert not gate.not_worse(Promote(), worse, exact, 0).holds
    assert gate.not_worse(Promote(), exact, worse, 0).holds


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "luck"}, "promote.metric must be auto or one of accuracy, macro_f1"),
        ({"margin": -0.1}, "promote.margin must be at least 0, got -0.1"),
    ],
)
def test_bad_settings(labels: np.ndarray, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judge(labels, wrong=1, champion=1, **settings)
