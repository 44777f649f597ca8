"""The order of labels, and the head that learns from them."""

import numpy as np
import pytest

from pipeline.teaching import order
from pipeline.teaching.learner import Learner

GROUPS = 6


def places(per_group: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Groups of features far from each other, and the number of each row's group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(GROUPS), per_group)
    centres = 20 * rng.normal(size=(GROUPS, 16))
    return centres[groups] + rng.normal(size=(len(groups), 16)), groups


def even(count: int, classes: int = 1) -> np.ndarray:
    return np.full((count, classes), 1 / classes)


def test_the_first_images_are_of_different_groups() -> None:
    features, groups = places()
    chosen = order.suggest(features, even(len(features)), [], GROUPS)
    assert sorted(groups[chosen]) == list(range(GROUPS))
    labelled = chosen[:3].tolist()
    later = order.suggest(features, even(len(features)), labelled, 3)
    assert not set(groups[later]) & set(groups[labelled])


def test_then_uncertain_ones_that_differ() -> None:
    features, groups = places(20)
    sure = np.tile([0.98, 0.02], (len(features), 1))
    doubtful = np.flatnonzero(groups < 3)
    sure[doubtful] = [0.51, 0.49]
    labelled = np.flatnonzero(groups == 5)[:19].tolist()
    chosen = order.suggest(features, sure, labelled, 3)
    assert sorted(groups[chosen]) == [0, 1, 2]


@pytest.mark.parametrize("labelled", [0, 40])
def test_near_duplicates_are_suggested_once(labelled: int) -> None:
    features, _ = places(10)
    copies = np.concatenate([features + 1e-3 * n for n in range(5)])
    known = list(range(labelled))
    chosen = order.suggest(copies, even(len(copies), 2), known, 15)
    originals = (chosen % len(features)).tolist()
    assert len(set(originals)) == len(originals) == 15
    assert not set(originals) & set(known)


def test_everything_is_suggested_in_the_end() -> None:
    features, _ = places(3)
    assert len(order.suggest(features, even(18), range(16), 20)) == 2
    assert len(order.suggest(features, even(18), range(18), 20)) == 0
    same = np.zeros((5, 16))
    assert len(order.suggest(same, even(5), [0], 3)) == 3
    assert len(set(order.suggest(same, even(5, 2), [0] * 12, 3).tolist())) == 3


@pytest.mark.parametrize("held_out", [[], [7, 3, 11], list(range(17, -1, -1))])
def test_every_fifth_image_is_one_that_was_held_out(held_out: list[int]) -> None:
    features, _ = places(3)
    labelled: list[int] = []
    while True:
        useful = order.suggest(features, even(18), labelled, 4, held_out).tolist()
        if not (chosen := order.mixed(useful, held_out, labelled, 4)):
            break
        labelled += chosen
    assert sorted(labelled) == list(range(18))
    if len(held_out) == 3:
        assert labelled[4:15:5] == held_out
    assert [row for row in labelled if row in held_out] == held_out


@pytest.mark.parametrize("delay", [1, 2, 7, 11])
def test_one_in_five_is_held_out_however_late_the_suggestions_come(delay: int) -> None:
    """A page shows the first of a list that was made some labels ago, and others may be labelled.

    Invariant: of every n images that were labelled in turn, n // 5 were held out.
    """
    rng = np.random.default_rng(delay)
    held_out = rng.permutation(500)[:100].tolist()
    others = sorted(set(range(500)) - set(held_out))
    labelled: set[int] = set()
    for count in range(400):
        if count % delay == 0:
            late = rng.permutation(others).tolist()
        assert len(labelled & set(held_out)) == count // 5
        labelled.add(order.mixed(late, held_out, labelled, 12)[0])
    labelled |= {row for row in late if row not in labelled} - set(late[:300])  # a grid
    assert len(labelled) > 400
    caught_up = order.mixed(late, held_out, labelled, 30)
    assert sum(row in held_out for row in caught_up) == (len(labelled) + 30) // 5 - 80


def test_the_same_labels_give_the_same_order() -> None:
    features, _ = places()
    twice = [order.suggest(features, even(len(features), 2), range(12), 10) for _ in range(2)]
    assert (twice[0] == twice[1]).all()


def test_the_head_learns_and_says_how_well() -> None:
    features, groups = places()
    learner = Learner(features.astype(np.float32))
    labels = {row: f"group {groups[row]}" for row in range(0, len(groups), 3)}
    learned = learner.fit(labels)
    answers = np.array(learned.classes)[learned.probabilities.argmax(axis=1)]
    assert (answers == [f"group {group}" for group in groups]).mean() > 0.98
    value, low, high = learned.accuracy(labels) or (0, 0, 0)
    assert low < value <= high <= 1
    assert value > 0.95
    assert learned.doubts(5) == []
    wrong = learner.fit({**labels, 0: "group 1"})
    assert wrong.doubts(5)[0][:2] == (0, "group 0")


@pytest.mark.parametrize("labels", [{}, {0: "a"}, {0: "a", 1: "a"}, {0: "a", 1: "b"}])
def test_few_labels_promise_nothing(labels: dict[int, str]) -> None:
    features, _ = places()
    learned = Learner(features.astype(np.float32)).fit(labels)
    assert learned.accuracy(labels) is None
    assert learned.doubts(5) == []
    assert learned.probabilities.shape == (len(features), max(1, len(set(labels.values()))))


def test_a_class_with_one_image_does_not_hide_the_accuracy_of_others() -> None:
    features, groups = places()
    labels = {row: f"group {groups[row]}" for row in range(0, len(groups), 3)}
    learned = Learner(features.astype(np.float32)).fit({**labels, 1: "new"})
    assert "new" in learned.classes
    assert learned.accuracy(labels) is not None
    assert 1 not in learned.rows
