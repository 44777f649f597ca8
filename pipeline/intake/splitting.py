"""Duplicates and splits: which picture is used, and for what.

rows + given splits -> rows with split and verdict. A function of the pictures'
bytes and the seed: the order of the files plays no part. Rows with the same pixels are one
picture, however often their files were saved anew.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from pipeline.data.manifest import CALIBRATION, SPLITS, Row
from pipeline.errors import InputError
from pipeline.intake import grouping

# A picture found in several given splits stays where it must not be lost: a
# test split keeps its size, and training never sees what is tested.
_PRECEDENCE = ("test", "val", "train")


@dataclass(frozen=True)
class Shares:
    """How much of a class goes to train and to val; the rest goes to test.

    A count, where it is given, wins over the fraction. `calibration_fraction` is a share of what
    goes to train.
    """

    train_per_class: int | None
    val_per_class: int | None
    train_fraction: float
    val_fraction: float
    calibration_fraction: float = 0.0

    def check(self) -> None:
        """Check settings that depend on each other.

        Raises:
            InputError: One count without the other, or fractions that leave nothing for test.
        """
        counts = (self.train_per_class, self.val_per_class)
        if None in counts and counts != (None, None):
            raise InputError(
                "prepare.train_per_class and val_per_class go together, got "
                f"{counts}: set both, or null both"
            )
        train, val = self.train_fraction, self.val_fraction
        if not train + val < 1:
            raise InputError(
                "prepare.train_fraction and val_fraction must be between 0 and 1 and leave some "
                f"for test, got {train} and {val}: lower one"
            )

    def of_groups(self, wanted: list[str]) -> dict[str, float]:
        """Split -> share of the pictures, train last: of those splits that are to be drawn.

        Raises:
            InputError: The shares are counts, which groups cannot keep to.
        """
        if self.train_per_class is not None:
            raise InputError(
                "data.group goes with fractions, got prepare.train_per_class="
                f"{self.train_per_class}: set train_per_class and val_per_class to null"
            )
        test = 1 - self.train_fraction - self.val_fraction
        sizes = {"test": test, "val": self.val_fraction, "train": self.train_fraction}
        return {split: share for split, share in sizes.items() if split in wanted}


def assign(
    rows: list[Row], reasons: dict[str, str], shares: Shares, seed: int
) -> tuple[list[Row], dict[str, str]]:
    """Give every good row a split, note duplicates, quarantine contradictions.

    By fractions, a picture's place depends on its own bytes and the seed alone:
    adding files moves no other (but one that filled an otherwise empty split). By
    counts, a new picture can only push out the last of the chosen. Groups are drawn
    together, so that a new one can move others.

    Args:
        rows: All pictures; `split` is the given one or empty.
        reasons: Path -> why it is bad. Not changed.
        shares: How much goes where.
        seed: Chooses which.

    Returns:
        The rows, with split and verdict, and the reasons with new ones added.
    """
    reasons = dict(reasons)
    copies: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.path not in reasons:
            copies[row.pixels].append(row)
    _contradictions(copies, reasons)
    groups = grouping.joined(copies)
    given = {row.split for row in rows if row.split}
    splits = _given(copies, groups, reasons) if given else {}
    splits |= _drawn(copies, groups, splits, given, shares, seed)
    splits |= _set_aside(copies, groups, splits, shares.calibration_fraction, seed)
    first = {
        pixels: next((row.path for row in rows if row.path not in reasons), "")
        for pixels, rows in copies.items()
    }
    done = []
    for row in rows:
        if row.path in reasons:
            done.append(replace(row, verdict="quarantined"))
        else:
            verdict = "ok" if first[row.pixels] == row.path else "duplicate"
            done.append(replace(row, split=splits[row.pixels], verdict=verdict))
    return done, reasons


def _contradictions(copies: dict[str, list[Row]], reasons: dict[str, str]) -> None:
    for pixels in list(copies):
        labels = sorted({row.label for row in copies[pixels]})
        if len(labels) > 1:
            for row in copies.pop(pixels):
                reasons[row.path] = f"the same picture is labelled {' and '.join(labels)}"


def _given(
    copies: dict[str, list[Row]], groups: dict[str, str], reasons: dict[str, str]
) -> dict[str, str]:
    """The given split of each picture; its copies and group in lesser splits are quarantined."""
    units: dict[str, list[Row]] = defaultdict(list)
    for pixels, rows in copies.items():
        units[groups.get(pixels, pixels)] += rows
    splits = {}
    for unit, rows in units.items():
        given = [split for split in _PRECEDENCE if any(row.split == split for row in rows)]
        if not given:
            continue
        kept = {row.pixels: row for row in reversed(rows) if row.split == given[0]}
        for row in rows:
            splits[row.pixels] = given[0]
            if row.split == given[0]:
                continue
            if row.pixels in kept:
                reasons[row.path] = f"duplicate of {kept[row.pixels].path}, which is in {given[0]}"
            elif row.split:  # one without goes where its group is
                reasons[row.path] = f"of group {unit}, which is in {given[0]}"
    return splits


def _drawn(
    copies: dict[str, list[Row]],
    groups: dict[str, str],
    given: dict[str, str],
    names: set[str],
    shares: Shares,
    seed: int,
) -> dict[str, str]:
    """Draw the splits that the source does not give, from what it leaves open.

    Where it gives some splits only, the missing ones are drawn from its train.
    """
    wanted = [split for split in SPLITS if split not in names or split == "train"]
    if len(wanted) == 1:
        return {}
    pools: dict[str, list[str]] = defaultdict(list)
    for pixels, rows in copies.items():
        if given.get(pixels, "train") == "train":
            pools[rows[0].label].append(pixels)
    if groups:
        labels = {pixels: label for label, pool in pools.items() for pixels in pool}
        return grouping.draw(labels, groups, shares.of_groups(wanted), seed) if labels else {}
    drawn: dict[str, str] = {}
    for pool in pools.values():
        ranked = sorted(
            (_uniform(seed, min(row.sha256 for row in copies[pixels])), pixels) for pixels in pool
        )
        chosen = {
            pixels: _choose(place, chance, wanted, shares)
            for place, (chance, pixels) in enumerate(ranked)
        }
        if shares.train_per_class is None:
            _lend(chosen, wanted)
        drawn |= chosen
    return drawn


def _set_aside(
    copies: dict[str, list[Row]],
    groups: dict[str, str],
    splits: dict[str, str],
    fraction: float,
    seed: int,
) -> dict[str, str]:
    """The training pictures that become the calibration split: no other picture moves.

    A group goes as a whole, and every class keeps a picture to train on.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for pixels, split in splits.items():
        if split == "train":
            units[groups.get(pixels, pixels)].append(pixels)
    left = Counter(copies[pixels][0].label for unit in units.values() for pixels in unit)
    aside: dict[str, str] = {}
    for unit in sorted(units):
        first = min(row.sha256 for pixels in units[unit] for row in copies[pixels])
        labels = Counter(copies[pixels][0].label for pixels in units[unit])
        spared = all(left[label] > count for label, count in labels.items())
        if spared and _uniform(seed, f"{CALIBRATION} {first}") < fraction:
            left -= labels
            aside |= dict.fromkeys(units[unit], CALIBRATION)
    return aside


def _lend(chosen: dict[str, str], wanted: list[str]) -> None:
    """In a class so small that chance leaves a split empty, give it a picture of the largest.

    Args:
        chosen: Picture -> split, in order of chance. Changed.
        wanted: The splits.
    """
    for split in wanted:
        counts = {name: list(chosen.values()).count(name) for name in wanted}
        largest = max(wanted, key=lambda name: counts[name])
        if not counts[split] and counts[largest] > 1:
            lent = [pixels for pixels, name in chosen.items() if name == largest]
            chosen[lent[-1]] = split


def _uniform(seed: int, sha256: str) -> float:
    """A number in [0, 1) that depends on the seed and the picture's bytes."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _choose(place: int, chance: float, wanted: list[str], shares: Shares) -> str:
    if shares.train_per_class is not None and shares.val_per_class is not None:
        counts = {"train": shares.train_per_class, "val": shares.val_per_class}
        value, sizes = float(place), {split: float(counts.get(split, 0)) for split in SPLITS}
    else:
        test = 1 - shares.train_fraction - shares.val_fraction
        value, sizes = chance, {"train": shares.train_fraction, "val": shares.val_fraction}
        sizes["test"] = test
    # Only the missing splits are drawn when the source gives others: train has the rest.
    *drawn, rest = wanted if wanted == list(SPLITS) else [*wanted[1:], "train"]
    for split in drawn:
        if value < sizes[split]:
            return split
        value -= sizes[split]
    return rest
