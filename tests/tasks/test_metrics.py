"""Metrics of labels and numbers are scikit-learn's, on all images and on every draw."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from pipeline.data.tasks import Fit, multilabel, regression
from pipeline.data.tasks.multilabel import LabelFacts
from pipeline.evaluation import label_curve

IMAGES, LABELS = 300, 6


def labelled(seed: int = 0) -> LabelFacts:
    """Labels, and probabilities with ties that are better than chance."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((IMAGES, LABELS)) < np.linspace(0.02, 0.6, LABELS)).astype(np.float32)
    chances = np.round(np.clip(0.3 * targets + rng.random((IMAGES, LABELS)) * 0.7, 0.01, 0.99), 2)
    chances = chances.astype(np.float32)
    return LabelFacts(targets, chances, (chances > 0.5).astype(np.float32))


def of_labels(targets: Any, chances: Any, decided: Any) -> dict[str, float]:
    present = targets.sum(axis=0) > 0
    return {
        "accuracy": sk.accuracy_score(targets, decided),
        "mean_average_precision": sk.average_precision_score(
            targets[:, present], chances[:, present], average="macro"
        ),
        "macro_f1": sk.f1_score(
            targets[:, present], decided[:, present], average="macro", zero_division=0
        ),
        "micro_f1": sk.f1_score(targets, decided, average="micro"),
        "hamming_loss": sk.hamming_loss(targets, decided),
        "log_loss": np.mean(
            [sk.log_loss(targets[:, k], chances[:, k], labels=[0, 1]) for k in range(LABELS)]
        ),
    }


def of_numbers(targets: Any, outputs: Any) -> dict[str, float]:
    return {
        "mean_absolute_error": sk.mean_absolute_error(targets, outputs),
        "root_mean_squared_error": sk.root_mean_squared_error(targets, outputs),
        "median_absolute_error": sk.median_absolute_error(targets, outputs),
        "r2": sk.r2_score(targets, outputs),
        "spearman": stats.spearmanr(targets, outputs).statistic,
    }


def draws() -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(1).integers(IMAGES, size=(5, IMAGES))
    return chosen, np.stack([np.bincount(row, minlength=IMAGES) for row in chosen]).astype(float)


def test_labels() -> None:
    facts, (chosen, counts) = labelled(), draws()
    actual = facts.weighted(counts)
    for place, rows in enumerate(chosen):
        for name, value in of_labels(*(part[rows] for part in vars(facts).values())).items():
            assert actual[name][place] == pytest.approx(value, abs=1e-6), name
    scores = facts.scores(list("abcdef"))
    area = sk.average_precision_score(facts.targets[:, 3], facts.outputs[:, 3])
    assert scores["d"]["average_precision"] == pytest.approx(area)
    assert scores["d"]["support"] == facts.targets[:, 3].sum()


def test_numbers() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(IMAGES, 1)) * 40 + 100
    outputs = (targets + 20 * rng.normal(size=(IMAGES, 1))).astype(np.float32)
    facts, (chosen, counts) = regression.TASK.facts(targets, outputs), draws()
    actual = facts.weighted(counts)
    for place, rows in enumerate(chosen):
        for name, value in of_numbers(facts.targets[rows], facts.outputs[rows]).items():
            assert actual[name][place] == pytest.approx(value, rel=1e-6), name


def test_thresholds_have_the_best_f1_on_validation() -> None:
    facts = labelled()
    chosen = multilabel.TASK.thresholds(facts.targets, facts.outputs)
    for label in range(LABELS):
        truth, chances = facts.targets[:, label], facts.outputs[:, label]
        best = max(sk.f1_score(truth, chances > at) for at in np.unique(chances)[:-1])
        assert sk.f1_score(truth, chances > chosen[label]) == pytest.approx(best, abs=0.02)


def test_two_networks_agree_if_they_decide_the_same() -> None:
    first, second = np.array([[0.4, 0.1]], np.float32), np.array([[0.2, 0.1]], np.float32)
    assert multilabel.TASK.agree(first, second, [0.5, 0.5]).all()
    assert not multilabel.TASK.agree(first, second, [0.3, 0.5]).any()


def test_a_wrong_label_stands_out_also_if_it_is_the_only_one() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((1000, 1)) < 0.4).astype(np.float32)
    features = (2 * targets + rng.normal(size=(1000, 30))).astype(np.float32)
    targets[7] = 1 - targets[7]
    suspects = multilabel.TASK.suspects(features, targets, ["cat"], Fit(1, 0, 1, False))
    assert [suspect.row for suspect in suspects] == [7]


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e6])
def test_gains_do_not_depend_on_the_unit(scale: float) -> None:
    rng = np.random.default_rng(0)
    errors = [rng.random(50) * worse for worse in (3.0, 2.0, 1.5)]
    expected = label_curve._gain(errors, 2.0, 0)
    assert (expected < 0).all()
    gain = label_curve._gain([error * scale for error in errors], 2.0, 0)
    assert gain == pytest.approx(scale * expected)
    interval = label_curve._interval(gain)
    assert interval["value"] == pytest.approx(scale * expected[0], rel=1e-2)


@pytest.mark.parametrize("last", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("outlier", [1.0, 300.0])
def test_no_gain_is_larger_than_the_error(last: float, outlier: float) -> None:
    rng = np.random.default_rng(0)
    errors = [(rng.random(40) < share).astype(float) for share in (0.6, 0.3, last)]
    errors[0][0] = outlier
    gain = label_curve._gain(errors, 5.0, 0)
    assert (gain <= 0).all()
    assert (gain >= [-part for part in label_curve._drawn(errors[-1], 0)]).all()


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e9])
def test_the_variance_of_large_numbers_is_theirs(offset: float) -> None:
    rng = np.random.default_rng(0)
    targets = offset + rng.normal(size=200)
    outputs = targets + 0.3 * rng.normal(size=200)
    facts = regression.NumberFacts(targets, outputs)
    assert facts.values()["r2"] == pytest.approx(sk.r2_score(targets, outputs), abs=1e-6)


@pytest.mark.parametrize("number", [0.1, 19.99, 1e6 + 0.1])
@pytest.mark.parametrize("count", [1, 7, 10])
def test_numbers_that_are_the_same_leave_nothing_to_explain(number: float, count: int) -> None:
    rest = np.linspace(-100, 0, 20)
    targets = np.concatenate([np.full(count, number), rest])
    facts = regression.NumberFacts(targets, targets + 1)
    assert facts.of(targets == number).values()["r2"] == 0
    draw = np.concatenate([np.ones(count), np.zeros(20)])[None]
    assert facts.weighted(draw)["r2"] == [0]


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e12])
def test_two_networks_agree_whatever_the_unit(scale: float) -> None:
    outputs = (np.linspace(1, 2, 20)[:, None] * scale).astype(np.float32)
    off = outputs + np.float32(0.2 * scale)
    assert regression.TASK.agree(outputs, outputs, []).all()
    assert not regression.TASK.agree(outputs, off, []).any()


def test_no_head_answers_out_of_all_bounds() -> None:
    scale = regression.Scale.of(np.exp(np.random.default_rng(0).normal(12, 1, 300)))
    assert scale.in_logs
    assert np.isfinite(scale.numbers(np.array([-500.0, 0, 9.9, 500]))).all()


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_regions_contain_what_they_promise(coverage: float) -> None:
    """Over 20 draws, of numbers and of sets of labels."""
    covered: dict[str, list[float]] = {"numbers": [], "labels": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        numbers = rng.normal(size=(700, 1))
        outputs = (numbers + rng.normal(size=(700, 1))).astype(np.float32)
        several = [labelled(3 * seed + n) for n in range(3)]
        labels, chances = (
            np.concatenate([getattr(item, name) for item in several])
            for name in ("targets", "outputs")
        )
        for name, task, truth, own in (
            ("numbers", regression.TASK, numbers, outputs),
            ("labels", multilabel.TASK, labels, chances),
        ):
            misses = np.sort(task.misses(truth[:200], own[:200]))
            reach = float(misses[int(np.ceil(201 * coverage)) - 1])
            regions = task.regions(own[200:], reach)
            inside = [task.covered(*pair) for pair in zip(truth[200:], regions, strict=True)]
            covered[name].append(float(np.mean(inside)))
    for name, values in covered.items():
        assert abs(np.mean(values) - coverage) < 0.025, name


def test_prices_are_learned_as_logarithms_and_temperatures_are_not() -> None:
    rng = np.random.default_rng(0)
    prices, degrees = np.exp(12 + rng.normal(size=400)), 20 + rng.normal(size=400)
    scale = regression.Scale.of(prices)
    assert scale.in_logs
    assert not regression.Scale.of(degrees - 25).in_logs
    for offset in range(20_240_101, 20_240_131):  # a day more or less changes nothing
        assert not regression.Scale.of(offset + np.arange(30.0) ** 2).in_logs
    assert scale.numbers(scale.learned(prices)) == pytest.approx(prices, rel=1e-5)


def test_wrong_numbers_and_labels_are_suspicious() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 12)).astype(np.float32)
    numbers = (features[:, :1] * 3 + 100).astype(np.float64)
    numbers[:8] += 30
    actual = regression.TASK.suspects(features, numbers, ["x"], Fit(1, 0, 2))
    assert {item.row for item in actual[:8]} == set(range(8))
    assert len(actual) < 12
    labels = (features[:, :3] > 0).astype(np.float32)
    labels[:8, 0] = 1 - labels[:8, 0]
    clear = np.abs(features[:8, 0]) > 1
    features = features[:, :3] @ rng.normal(size=(3, 200)).astype(np.float32)
    marked = multilabel.TASK.suspects(features, labels, list("abc"), Fit(3, 0, 2))
    assert set(np.flatnonzero(clear)) <= {item.row for item in marked}
    assert len(marked) < 40
