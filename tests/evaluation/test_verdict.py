"""Verdicts about two models: for each metric, no more than its interval supports."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.data.tasks import facts
from pipeline.evaluation import resampling, verdict


def some(classes: int, images: int, seed: int = 0) -> tuple[facts.Labels, Any]:
    """Labels, and probabilities that are right more often than not, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    values = np.exp(logits)
    rounded = np.round(values / values.sum(axis=1, keepdims=True), 2) + 0.001
    return labels, (rounded / rounded.sum(axis=1, keepdims=True)).astype(np.float32)


def test_verdicts() -> None:
    labels, good = some(3, 400)
    bad = good.copy()
    wrong = np.flatnonzero(good.argmax(axis=1) == labels)[:30]
    bad[wrong] = np.roll(good[wrong], 1, axis=1)

    def compared(first: Any, second: Any) -> resampling.Comparison:
        return resampling.compare(
            *(resampling.resample(facts.gather(labels, m), 0) for m in (first, second))
        )

    better = compared(bad, good)
    assert better.verdict[0].startswith("accuracy is better")
    assert (better.only_first, better.only_second) == (0, 30)
    assert better.p_value == pytest.approx(2 * 0.5**30)
    assert better.differences["accuracy"].value == pytest.approx(30 / 400)
    assert compared(good, bad).verdict[0].startswith("accuracy is worse")
    assert compared(good, good).verdict[0].startswith("accuracy is the same")
    bad[wrong[2:]] = good[wrong[2:]]
    assert "no measurable difference in accuracy" in compared(bad, good).verdict[0]


@pytest.mark.parametrize(("right", "images"), [(12, 12), (0, 12), (150, 200)])
def test_a_few_right_images_prove_little(right: int, images: int) -> None:
    labels = np.arange(images) % 2
    answers = np.where(np.arange(images) < right, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[answers] * 0.98 + 0.01
    spread = resampling.intervals(resampling.resample(facts.gather(labels, probabilities), 0))
    interval = spread["accuracy"]
    exact = stats.binomtest(right, images).proportion_ci(method="exact")
    assert interval.value == pytest.approx(right / images)
    assert interval.low == pytest.approx(exact.low, abs=0.06)
    assert interval.high == pytest.approx(exact.high, abs=0.06)


def test_a_model_may_be_no_more_accurate_and_yet_surer_of_what_it_knows() -> None:
    labels, good = some(3, 400)
    timid = (0.3 * good + 0.7 / 3).astype(np.float32)  # the same answers, hardly meant
    first, second = (resampling.resample(facts.gather(labels, item), 0) for item in (timid, good))
    accuracy, log_loss, f1 = resampling.compare(first, second).verdict
    assert accuracy.startswith("accuracy is the same")
    assert log_loss.startswith("log loss is better")
    assert f1.startswith("no measurable difference in macro F1")
    _, log_loss, brier = resampling.compare(
        second, first, ("accuracy", "log_loss", "brier")
    ).verdict
    assert log_loss.startswith("log loss is worse")
    assert brier.startswith("brier is worse"), "lower is better of it, too"


@pytest.mark.parametrize(
    ("name", "bounds", "begin"),
    [
        ("log_loss", (-0.2, -0.1), "log loss is better"),
        ("log_loss", (0.1, 0.2), "log loss is worse"),
        ("macro_f1", (0.1, 0.2), "macro F1 is better"),
        ("macro_f1", (-0.2, -0.1), "macro F1 is worse"),
        ("macro_f1", (-0.1, 0.2), "no measurable difference in macro F1"),
    ],
)
def test_which_way_is_better(name: str, bounds: tuple[float, float], begin: str) -> None:
    middle = sum(bounds) / 2
    assert verdict.of_metric(name, 0.5, 0.5 + middle, bounds).startswith(begin)


def test_a_difference_that_is_detectable_is_found_four_times_in_five() -> None:
    """By McNemar's test on drawn pairs of models that differ by that much."""
    images, apart = 1_000, 0.1
    gain = verdict.detectable(images, apart)
    rng = np.random.default_rng(0)
    actual = 0
    for _ in range(1_000):
        only_second, only_first, _ = rng.multinomial(
            images, [(apart + gain) / 2, (apart - gain) / 2, 1 - apart]
        )
        actual += stats.binomtest(only_second, only_second + only_first).pvalue < 0.05
    assert 720 <= actual <= 880
    assert verdict.detectable(10) > verdict.detectable(1_000)
