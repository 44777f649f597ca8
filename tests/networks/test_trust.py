"""Unknown images and prediction sets keep what they promise."""

from typing import Any

import numpy as np
import pytest

from pipeline.data.tasks import classification
from pipeline.errors import InputError
from pipeline.networks.trust import reference
from pipeline.networks.trust.judging import Judge
from pipeline.networks.trust.reference import Reference

CLASSES, FEATURES = 4, 32
HARD = 14
"""Noise with which a third of the images is mistaken."""
CENTRES = np.random.default_rng(7).normal(size=(CLASSES, FEATURES)) * 4


def outputs(count: int, seed: int, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Make (N, K + D) outputs of a reasonable classifier, and the true labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=count)
    features = CENTRES[labels] + noise * rng.normal(size=(count, FEATURES))
    logits = -((features[:, None] - CENTRES) ** 2).sum(axis=2) / 40
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    values /= values.sum(axis=1, keepdims=True)
    return np.hstack([values, features]).astype(np.float32), labels


def made(seed: int = 0, calibration: int = 200) -> Reference:
    aside, labels = outputs(calibration, seed + 2, noise=HARD)
    seen, (unseen, truth) = outputs(300, seed)[0], outputs(200, seed + 1)
    traits = {"brightness": [0.5, 0.25]}
    return reference.make(
        classification.TASK, (seen, unseen, aside), (truth, labels), CLASSES, traits
    )


def judge_of(item: Reference, **settings: Any) -> Judge:
    return Judge(item, classification.TASK, list("abcd"), **settings)


def test_it_comes_back_as_it_was() -> None:
    item = made()
    files = item.files()
    back = reference.read(files)
    assert back is not None
    assert back.files() == files
    assert made().files() == files, "the same bytes for the same values"
    rows, _ = outputs(50, 9)
    first, second = (judge_of(which)(rows) for which in (item, back))
    assert first.typicality is not None
    assert second.typicality is not None
    assert (first.typicality == second.typicality).all()


def test_company_changes_nothing() -> None:
    judge, (rows, _) = judge_of(made()), outputs(64, 5)
    whole = judge(rows)
    assert whole.typicality is not None
    assert whole.regions is not None
    both = classification.TASK, list("abcd")
    for row in range(64):
        alone = judge(rows[row : row + 1])
        assert alone.answer(0, *both) == whole.answer(row, *both)


@pytest.mark.parametrize("unknown", [0.02, 0.05, 0.2])
def test_of_ordinary_images_no_more_than_that_share_is_unknown(unknown: float) -> None:
    shares = []
    for seed in range(0, 200, 10):
        rows, _ = outputs(400, seed + 5)
        known = judge_of(made(seed), unknown=unknown)(rows).known
        assert known is not None
        shares.append(1 - known.mean())
    assert abs(np.mean(shares) - unknown) < 0.02


def test_strange_images_are_unknown() -> None:
    rng = np.random.default_rng(1)
    rows, _ = outputs(200, 3)
    rows[:, CLASSES:] = 4 * rng.normal(size=(200, FEATURES))
    known = judge_of(made())(rows).known
    assert known is not None
    assert known.mean() < 0.02


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_what_they_promise(coverage: float) -> None:
    """Over 20 draws of calibration and test images."""
    covered, sizes = [], []
    for seed in range(0, 200, 10):
        rows, labels = outputs(500, seed + 3, noise=HARD)
        sets = judge_of(made(seed), coverage=coverage)(rows).regions
        assert sets is not None
        assert all(len(own) for own in sets)
        covered.append(np.mean([label in own for label, own in zip(labels, sets, strict=True)]))
        sizes.append(np.mean([len(own) for own in sets]))
    assert coverage - 0.025 < np.mean(covered) < coverage + 0.025
    assert np.mean(sizes) < CLASSES - 1, "sets that say something"


def test_sets_need_calibration_images() -> None:
    for count, verb in ((3, "raise"), (0, "set")):
        message = f"at least 9 calibration images, the model has {count}: {verb} prepare.calib"
        with pytest.raises(InputError, match=message):
            judge_of(made(calibration=count), coverage=0.9, insist=True)
    judge = judge_of(made(calibration=3), coverage=0.9)
    assert not judge.gives_sets
    assert judge(outputs(5, 0)[0]).regions is None
