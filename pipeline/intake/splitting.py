"""Duplicates and splits: which image is used, and for what.

rows + given splits -> rows with split and verdict. A function of the images'
bytes and the seed: the order of the files plays no part. Rows with the same pixels are one
image, however often their files were saved anew.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.data.manifest import CALIBRATION, SPLITS, Row
from pipeline.errors import InputError
from pipeline.intake import grouping

# An image found in several given splits stays where it must not be lost: a
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

    def of_class(self, count: int, wanted: list[str]) -> list[str]:
        """The splits of a class's images, in order of rank.

        Args:
            count: How many images the class has.
            wanted: The splits that are drawn, train among them.
        """
        if self.train_per_class is not None and self.val_per_class is not None:
            counts = {"train": self.train_per_class, "val": self.val_per_class}
            *drawn, rest = wanted if wanted == list(SPLITS) else [*wanted[1:], "train"]
            places = [split for split in drawn for _ in range(counts.get(split, 0))][:count]
            return places + [rest] * (count - len(places))
        test = 1 - self.train_fraction - self.val_fraction
        shares = {"val": self.val_fraction, "test": test}
        shares = {split: share for split, share in shares.items() if split in wanted}
        sizes = apportioned(count, {"train": 1 - sum(shares.values()), **shares})
        # train in the middle: where an image leaves val or test, it is for train.
        return [s for s in ("val", "train", "test") for _ in range(sizes.get(s, 0))]

    def of_groups(self, wanted: list[str]) -> dict[str, float]:
        """Split -> share of the images, train last: of those splits that are to be drawn.

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

    Each class is divided by the rank of a hash of seed and bytes, so that every class has its
    shares to within one image, and an image in each split if it has three. Between splits lies a
    boundary that one new file moves by at most one image: adding k files moves about k others at
    the most, in practice far fewer. Groups are drawn together, so that a new one can move others.

    Args:
        rows: All images; `split` is the given one or empty.
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
                reasons[row.path] = f"the same image is labelled {' and '.join(labels)}"


def _given(
    copies: dict[str, list[Row]], groups: dict[str, str], reasons: dict[str, str]
) -> dict[str, str]:
    """The given split of each image; its copies and group in lesser splits are quarantined."""
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
        places = shares.of_class(len(pool), wanted)
        drawn |= {pixels: split for (_, pixels), split in zip(ranked, places, strict=True)}
    return drawn


def _set_aside(
    copies: dict[str, list[Row]],
    groups: dict[str, str],
    splits: dict[str, str],
    fraction: float,
    seed: int,
) -> dict[str, str]:
    """The training images that become the calibration split: no other image moves.

    A group goes as a whole, and every class keeps an image to train on.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for pixels, split in splits.items():
        if split == "train":
            units[groups.get(pixels, pixels)].append(pixels)
    sizes = Counter(copies[pixels][0].label for unit in units.values() for pixels in unit)
    open_ = Counter({name: min(round(fraction * n), n - 1) for name, n in sizes.items()})
    first = {
        unit: min(row.sha256 for pixels in units[unit] for row in copies[pixels]) for unit in units
    }
    aside: dict[str, str] = {}
    for unit in sorted(units, key=lambda unit: _uniform(seed, f"{CALIBRATION} {first[unit]}")):
        labels = Counter(copies[pixels][0].label for pixels in units[unit])
        if labels <= open_:
            open_ -= labels
            aside |= dict.fromkeys(units[unit], CALIBRATION)
    return aside


def _uniform(seed: int, sha256: str) -> float:
    """A number in [0, 1) that depends on the seed and the image's bytes."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def apportioned(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide a number of images by shares, each at least one if there are enough.

    Source: Sainte-Laguë's method. Of a count that grows by one, one part grows by one.

    Args:
        count: How many there are.
        shares: Part -> its share; they add up to 1.
    """
    sizes = {name: max(1, int(share * count) - 1) for name, share in shares.items()}
    while sum(sizes.values()) > count:  # fewer images than parts: the first ones get them
        last = next(name for name in reversed(sizes) if sizes[name])
        sizes[last] -= 1
    for _ in range(count - sum(sizes.values())):
        poorest = max(shares, key=lambda name: shares[name] / (2 * sizes[name] + 1))
        sizes[poorest] += 1
    return sizes
