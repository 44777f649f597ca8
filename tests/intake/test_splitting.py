"""Splits are stratified, deterministic, stable; duplicates never leak."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest

from pipeline.data.manifest import CALIBRATION, Row
from pipeline.errors import InputError
from pipeline.intake.splitting import Shares, assign
from pipeline.settings import check
from pipeline.stages.prepare import Config

FRACTIONS = Shares(None, None, 0.6, 0.2)


def rows(count: int, label: str = "a", split: str = "") -> list[Row]:
    return [row(f"{label}/{n}", label, split, f"{label}{n}") for n in range(count)]


def row(path: str, label: str, split: str, content: str, group: str = "") -> Row:
    return Row(path, label, split, content, 1, 1, "ok", group=group, pixels=f"px {content}")


def splits(done: list[Row]) -> dict[str, str]:
    return {row.path: row.split for row in done}


@pytest.mark.parametrize("shares", [(0.7, 0.15), (0.6, 0.2), (0.5, 0.25), (0.9, 0.05), (0.2, 0.7)])
def test_every_class_has_its_shares_to_within_an_image(shares: tuple[float, float]) -> None:
    train, val = shares
    wanted = {"train": train, "val": val, "test": 1 - train - val}
    for total in (*range(3, 60), 231, 1000):
        done, _ = assign(rows(total), {}, Shares(None, None, train, val), seed=total)
        counts = Counter(row.split for row in done)
        assert min(counts[split] for split in wanted) >= 1
        assert sum(counts.values()) == total
        for split, share in wanted.items():
            own = counts[split] - share * total
            # Where a share is less than an image, it is rounded up, at the cost of the others.
            assert abs(own) <= 1 or min(wanted.values()) * total < 1, (total, split)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("more", [1, 2, 5, 50])
def test_adding_files_moves_hardly_any_others(seed: int, more: int) -> None:
    before, _ = assign(rows(100), {}, FRACTIONS, seed=seed)
    after, _ = assign(rows(100 + more)[::-1], {}, FRACTIONS, seed=seed)
    moved = splits(before).items() - splits(after).items()
    assert len(moved) <= max(more, 2)


@pytest.mark.parametrize("named", [("test", "val"), ("test", "val", "train"), ("test",)])
@pytest.mark.parametrize("grouped", [False, True])
def test_images_without_a_split_beside_those_with_one(
    named: tuple[str, ...], grouped: bool
) -> None:
    given = [row for split in named for row in rows(10, split, split)]
    given = [replace(row, label="a") for row in given] + rows(40)
    if grouped:
        given = [replace(row, group=row.path[:-1]) for row in given]
    done, reasons = assign(given, {}, FRACTIONS, seed=0)
    assert not reasons
    assert all(row.split for row in done)
    kept = [(row.path, row.split) for row in given if row.split in ("test", "val")]
    assert set(kept) <= set(splits(done).items())
    assert {row.split for row in done} == {"train", "val", "test"}


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_calibration_takes_its_share_of_groups(fraction: float) -> None:
    """Groups are larger than the share of a class."""
    shares = replace(FRACTIONS, calibration_fraction=fraction)
    given = [replace(item, group=f"house {n // 4}") for n, item in enumerate(rows(200))]
    given = [replace(item, label=f"class {n % 40}") for n, item in enumerate(given)]
    done, _ = assign(given, {}, shares, seed=1)
    counts = Counter(row.split for row in done)
    train = counts["train"] + counts[CALIBRATION]
    assert counts[CALIBRATION] == pytest.approx(fraction * train, abs=4)
    assert len({(row.group, row.split) for row in done}) == 50


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_calibration_takes_its_share_of_every_class(fraction: float) -> None:
    shares = replace(FRACTIONS, calibration_fraction=fraction)
    done, _ = assign([*rows(200), *rows(40, "b"), *rows(4, "c")], {}, shares, seed=1)
    counts = Counter((row.label, row.split) for row in done)
    for label in "abc":
        train = counts[label, "train"] + counts[label, CALIBRATION]
        assert abs(counts[label, CALIBRATION] - fraction * train) <= 1


def test_the_seed_chooses() -> None:
    item, _ = assign(rows(100), {}, FRACTIONS, seed=0)
    other, _ = assign(rows(100), {}, FRACTIONS, seed=1)
    assert splits(item) != splits(other)


def test_counts_are_exact_in_every_class() -> None:
    done, _ = assign(rows(50) + rows(30, "b"), {}, Shares(20, 5, 0.7, 0.1), seed=3)
    counts = Counter((row.label, row.split) for row in done)
    assert counts == {
        ("a", "train"): 20,
        ("a", "val"): 5,
        ("a", "test"): 25,
        ("b", "train"): 20,
        ("b", "val"): 5,
        ("b", "test"): 5,
    }


def test_a_given_split_is_kept_and_the_missing_one_drawn_from_train() -> None:
    given = rows(100, split="train") + rows(40, "b", split="test")
    done, _ = assign(given, {}, FRACTIONS, seed=0)
    actual = Counter((row.label, row.split) for row in done)
    assert actual["b", "test"] == 40
    assert set(actual) == {("a", "train"), ("a", "val"), ("b", "test")}
    assert 5 < actual["a", "val"] < 40


def test_duplicates_within_a_split_are_noted_and_kept() -> None:
    copy = row("a/copy", "a", "", "a0")
    done, reasons = assign([*rows(10), copy], {}, FRACTIONS, seed=0)
    assert not reasons
    assert done[-1].verdict == "duplicate"
    assert done[-1].split == done[0].split


def test_duplicates_across_splits_stay_in_test_only() -> None:
    train = row("train/x", "a", "train", "same")
    test = row("test/x", "a", "test", "same")
    done, reasons = assign([train, test], {}, FRACTIONS, seed=0)
    assert [row.verdict for row in done] == ["quarantined", "ok"]
    assert reasons == {"train/x": "duplicate of test/x, which is in test"}


def test_contradicting_labels_quarantine_both() -> None:
    pair = [row(f"{name}/x", name, "", "same") for name in "ab"]
    done, reasons = assign([*rows(5), *pair], {}, FRACTIONS, seed=0)
    assert reasons == dict.fromkeys(["a/x", "b/x"], "the same image is labelled a and b")
    assert [row.verdict for row in done[-2:]] == ["quarantined"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_per_class": 0, "val_per_class": 1}, "must be at least 1, got"),
        ({"train_per_class": 5}, "must be set together"),
        ({"train_fraction": 0.9, "val_fraction": 0.1}, "for test, got 0.9 and 0.1"),
    ],
)
def test_shares_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(Config(**settings), "prepare")


@pytest.mark.parametrize("seed", range(30))
def test_a_small_class_leaves_no_split_empty(seed: int) -> None:
    done, _ = assign(rows(3), {}, FRACTIONS, seed)
    assert {row.split for row in done} == {"train", "val", "test"}
    few, _ = assign(rows(1), {}, FRACTIONS, seed)
    assert len(few) == 1


def test_a_file_saved_anew_is_the_same_image() -> None:
    train, test = row("train/x", "a", "train", "one"), row("test/x", "a", "test", "other")
    done, reasons = assign([train, replace(test, pixels=train.pixels)], {}, FRACTIONS, seed=0)
    assert reasons == {"train/x": "duplicate of test/x, which is in test"}
    assert [item.verdict for item in done] == ["quarantined", "ok"]


def patients(count: int, each: int) -> list[Row]:
    """Images of two classes; every third patient has both."""
    return [
        row(f"{n}/{k}", "ab"[(n + (k % 2) * (n % 3 == 0)) % 2], "", f"{n}.{k}", f"patient {n}")
        for n, k in itertools.product(range(count), range(each))
    ]


@pytest.mark.parametrize(("count", "each"), [(6, 10), (12, 7), (40, 5), (300, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_never_torn_apart(count: int, each: int, seed: int) -> None:
    done, reasons = assign(patients(count, each), {}, FRACTIONS, seed)
    assert not reasons
    splits_of = {(item.group, item.split) for item in done}
    assert len(splits_of) == count, "each patient is in one split"
    counts = Counter((item.label, item.split) for item in done)
    assert set(counts) == set(itertools.product("ab", ("train", "val", "test")))
    if count >= 40:
        for label in "ab":
            total = sum(counts[label, split] for split in ("train", "val", "test"))
            assert abs(counts[label, "train"] / total - 0.6) < 0.1
    again, _ = assign(patients(count, each)[::-1], {}, FRACTIONS, seed)
    assert splits(again) == splits(done), "whatever the order of the files"


def test_groups_that_share_an_image_are_one() -> None:
    images = patients(20, 4)
    first, other = images[0], next(item for item in images if item.group == "patient 2")
    copy = replace(other, path="copy", pixels=first.pixels, sha256="saved anew")
    done, _ = assign([*images, copy], {}, FRACTIONS, seed=0)
    assert len({item.split for item in done if item.group in (first.group, other.group)}) == 1


def test_a_group_in_two_given_splits_stays_in_the_one_that_is_tested() -> None:
    rows = [row("train/x", "a", "train", "1", "p"), row("test/x", "a", "test", "2", "p")]
    rows += [row("train/y", "a", "train", "3", "q"), row("val/y", "a", "val", "4", "r")]
    rows += [row("x", "a", "", "5", "p")]
    done, reasons = assign(rows, {}, FRACTIONS, seed=0)
    assert reasons == {"train/x": "its group p is in test"}
    assert [item.split for item in done] == ["train", "test", "train", "val", "test"]


def test_groups_go_with_fractions_and_need_one_a_split() -> None:
    with pytest.raises(InputError, match=r"data\.group needs fractions"):
        assign(patients(9, 3), {}, Shares(2, 2, 0.7, 0.15), seed=0)
    with pytest.raises(InputError, match="at least one group for each of test, val, train, got 2"):
        assign(patients(2, 9), {}, FRACTIONS, seed=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_group_of_most_images_is_trained_on(seed: int) -> None:
    """Even if it is the only one with all classes."""
    images = [row(f"l/{n}", "abc"[n % 3], "", f"l{n}", "large") for n in range(60)]
    images += [row(f"s/{n}", "ab"[n // 4 % 2], "", f"s{n}", f"small {n // 4}") for n in range(40)]
    done, _ = assign(images, {}, FRACTIONS, seed)
    assert {item.split for item in done if item.group == "large"} == {"train"}


def test_calibration_images_come_out_of_train_alone() -> None:
    many = rows(300) + rows(200, "b")
    plain, _ = assign(many, {}, FRACTIONS, seed=0)
    aside, _ = assign(many, {}, replace(FRACTIONS, calibration_fraction=0.25), seed=0)
    before, after = splits(plain), splits(aside)
    moved = [path for path in before if before[path] != after[path]]
    assert {before[path] for path in moved} == {"train"}
    assert {after[path] for path in moved} == {CALIBRATION}
    assert 0.15 < len(moved) / Counter(before.values())["train"] < 0.35


def test_groups_go_to_calibration_as_a_whole_and_classes_keep_an_image() -> None:
    grouped = [row(f"a/{n}", "a", "", f"a{n}", f"g{n // 5}") for n in range(200)]
    grouped += [row(f"b/{n}", "b", "", f"b{n}", f"h{n // 5}") for n in range(200)]
    done, _ = assign(grouped, {}, replace(FRACTIONS, calibration_fraction=0.9), seed=0)
    by_group: dict[str, set[str]] = {}
    for item in done:
        by_group.setdefault(item.group, set()).add(item.split)
    assert all(len(actual) == 1 for actual in by_group.values())
    counts = Counter((item.label, item.split) for item in done)
    for label in "ab":
        assert counts[label, CALIBRATION]
        assert counts[label, "train"]
