"""Drift tests: two samples of one dataset do not differ; changes are detected and named."""

import numpy as np

from pipeline.evaluation import drift
from pipeline.evaluation.drift import Finding

CLASSES = ["cat", "dog"]


def compared(seed: int, shift: float = 0.0, dogs: float = 0.5) -> dict[str, Finding]:
    rng = np.random.default_rng(seed)
    before = {name: rng.normal(size=300) for name in ("brightness", "contrast", "width")}
    now = {name: rng.normal(size=120) for name in before}
    now["contrast"] = now["contrast"] + shift
    labels = (rng.random(300) < 0.5).astype(np.int64), (rng.random(120) < dogs).astype(np.int64)
    return {item.trait: item for item in drift.compare(before, now, labels, CLASSES)}


def test_alike_samples_are_seldom_said_to_differ() -> None:
    wrong = [any(item.differs for item in compared(seed).values()) for seed in range(200)]
    assert np.mean(wrong) < 0.09


def test_a_shift_is_found_and_named() -> None:
    actual = compared(0, shift=1.0)
    assert [name for name, item in actual.items() if item.differs] == ["contrast"]


def test_other_classes_are_found() -> None:
    actual = compared(1, dogs=0.95)
    assert [name for name, item in actual.items() if item.differs] == ["predicted class"]
    assert actual["predicted class"].now.startswith("dog 9")


def test_a_difference_without_weight_is_none() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=200_000), rng.normal(size=200_000) + 0.05
    labels = np.zeros(200_000, np.int64)
    actual = drift.compare({"x": values[0]}, {"x": values[1]}, (labels, labels), ["a", "b"])
    assert actual[0].p_value < 0.001
    assert not actual[0].differs
