"""Find duplicates and assign splits.

rows + splits of the source -> rows with split and verdict. The result depends only on the images'
bytes and the seed, not on the order of files. Rows with the same pixels are one image, even if
their files differ.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.data.manifest import CALIBRATION, SPLITS, Row
from pipeline.data.tasks import Task, classification
from pipeline.errors import InputError
from pipeline.intake import grouping

# An image in several splits of the source stays in the most important one: a test split
# keeps its size, and training never sees what is tested.
_PRECEDENCE = ("test", "val", "train")


@dataclass(frozen=True)
class Shares:
    """Sizes of train and val for each class; the rest goes to test.

    A count takes precedence over the fraction. `calibration_fraction` is a fraction of train.
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
                "prepare.train_per_class and val_per_class must be set together, got "
                f"{counts}: set both, or set both to null"
            )
        train, val = self.train_fraction, self.val_fraction
        if not train + val < 1:
            raise InputError(
                "prepare.train_fraction and val_fraction must be between 0 and 1 and leave a "
                f"fraction for test, got {train} and {val}: lower one"
            )

    def of_class(self, count: int, wanted: list[str]) -> list[str]:
        """List the splits of a class of `count` images by rank; `wanted` includes train."""
        if self.train_per_class is not None and self.val_per_class is not None:
            counts = {"train": self.train_per_class, "val": self.val_per_class}
            *drawn, rest = wanted if wanted == list(SPLITS) else [*wanted[1:], "train"]
            places = [split for split in drawn for _ in range(counts.get(split, 0))][:count]
            return places + [rest] * (count - len(places))
        test = 1 - self.train_fraction - self.val_fraction
        shares = {"val": self.val_fraction, "test": test}
        shares = {split: share for split, share in shares.items() if split in wanted}
        sizes = apportioned(count, {"train": 1 - sum(shares.values()), **shares})
        # train in the middle: an image that leaves val or test goes to train.
        return [s for s in ("val", "train", "test") for _ in range(sizes.get(s, 0))]

    def of_groups(self, wanted: list[str]) -> dict[str, float]:
        """Map each split to draw to its fraction of the images, train last.

        Raises:
            InputError: The sizes are counts, which groups cannot match.
        """
        if self.train_per_class is not None:
            raise InputError(
                "data.group needs fractions, got prepare.train_per_class="
                f"{self.train_per_class}: set train_per_class and val_per_class to null"
            )
        test = 1 - self.train_fraction - self.val_fraction
        sizes = {"test": test, "val": self.val_fraction, "train": self.train_fraction}
        return {split: share for split, share in sizes.items() if split in wanted}


def assign(
    rows: list[Row],
    reasons: dict[str, str],
    shares: Shares,
    seed: int,
    task: Task = classification.TASK,
) -> tuple[list[Row], dict[str, str]]:
    """Assign a split to every good row, mark duplicates, quarantine contradictions.

    Each class is divided by the rank of a hash of seed and bytes, so that every class has its
    shares to within one image, and at least one image in each split if it has three. A new file
    moves each boundary between splits by at most one image: adding k files moves at most about k
    others, and usually far fewer. Groups are drawn together, so a new group can move others.

    Args:
        rows: All images; `split` is that of the source or empty.
        reasons: Path -> why it is unusable. Not changed.
        shares: Sizes of the splits.
        seed: Seed of the draw.
        task: What is predicted; its strata are divided like classes.

    Returns:
        The rows with split and verdict, and the reasons including new ones.

    Raises:
        InputError: The sizes are counts, and there are no classes.
    """
    if shares.train_per_class is not None and not task.has_strata:
        raise InputError(
            f"prepare.train_per_class={shares.train_per_class} needs classes, but {task.noun} are "
            "predicted: set train_per_class and val_per_class to null"
        )
    reasons = dict(reasons)
    copies: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.path not in reasons:
            copies[row.pixels].append(row)
    _contradictions(copies, reasons)
    keys = sorted(copies)
    kinds = dict(zip(keys, task.strata([copies[key][0].label for key in keys]), strict=True))
    groups = grouping.joined(copies)
    named = {row.split for row in rows if row.split}
    splits = _from_source(copies, groups, reasons) if named else {}
    wanted = [split for split in SPLITS if split not in named or split == "train"]
    pools: dict[str, list[str]] = defaultdict(list)
    for pixels in copies:
        if splits.get(pixels, "train") == "train":
            pools[kinds[pixels]].append(pixels)
    if len(wanted) > 1:
        splits |= _drawn(copies, pools, groups, wanted, shares, seed)
    splits = dict.fromkeys(copies, "train") | splits  # the source may leave some unassigned
    splits |= _set_aside(copies, kinds, groups, splits, shares.calibration_fraction, seed)
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
        labels = sorted({row.label or "nothing" for row in copies[pixels]})
        if len(labels) > 1:
            for row in copies.pop(pixels):
                reasons[row.path] = f"the same image is labelled {' and '.join(labels)}"


def _from_source(
    copies: dict[str, list[Row]], groups: dict[str, str], reasons: dict[str, str]
) -> dict[str, str]:
    """Return the source's split of each image; copies and groups in others are quarantined."""
    units: dict[str, list[Row]] = defaultdict(list)
    for pixels, rows in copies.items():
        units[groups.get(pixels, pixels)] += rows
    splits = {}
    for unit, rows in units.items():
        present = [split for split in _PRECEDENCE if any(row.split == split for row in rows)]
        if not present:
            continue
        chosen = present[0]
        kept = {row.pixels: row for row in reversed(rows) if row.split == chosen}
        for row in rows:
            splits[row.pixels] = chosen
            if row.split == chosen:
                continue
            if row.pixels in kept:
                reasons[row.path] = f"duplicate of {kept[row.pixels].path}, which is in {chosen}"
            elif row.split:  # a row without a split follows its group
                reasons[row.path] = f"its group {unit} is in {chosen}"
    return splits


def _drawn(
    copies: dict[str, list[Row]],
    pools: Mapping[str, list[str]],
    groups: dict[str, str],
    wanted: list[str],
    shares: Shares,
    seed: int,
) -> dict[str, str]:
    """Draw the splits that the source does not assign, from its unassigned images.

    If it assigns only some splits, the missing ones are drawn from its train.
    """
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
    kinds: Mapping[str, str],
    groups: dict[str, str],
    splits: dict[str, str],
    fraction: float,
    seed: int,
) -> dict[str, str]:
    """Choose the training images that become the calibration split: no other image moves.

    Groups stay whole, which classes then need not have equal shares of, and every class keeps an
    image to train on.
    """
    units: dict[str, list[str]] = defaultdict(list)
    for pixels, split in splits.items():
        if split == "train":
            units[groups.get(pixels, pixels)].append(pixels)
    sizes = Counter(kinds[pixels] for unit in units.values() for pixels in unit)
    share = 1.0 if groups else fraction
    open_ = Counter({name: min(round(share * n), n - 1) for name, n in sizes.items()})
    left = round(fraction * sizes.total())
    first = {
        unit: min(row.sha256 for pixels in units[unit] for row in copies[pixels]) for unit in units
    }
    aside: dict[str, str] = {}
    for unit in sorted(units, key=lambda unit: _uniform(seed, f"{CALIBRATION} {first[unit]}")):
        labels = Counter(kinds[pixels] for pixels in units[unit])
        if labels <= open_ and (not groups or labels.total() <= left):
            open_ -= labels
            left -= labels.total()
            aside |= dict.fromkeys(units[unit], CALIBRATION)
    return aside


def _uniform(seed: int, sha256: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the image's bytes."""
    digest = hashlib.sha256(f"{seed}:{sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def apportioned(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide a number of images by shares, each at least one if there are enough.

    Source: the Sainte-Laguë method. If the count grows by one, one part grows by one.

    Args:
        count: Number of images.
        shares: Part -> its share; they add up to 1.
    """
    sizes = {name: max(1, int(share * count) - 1) for name, share in shares.items()}
    while sum(sizes.values()) > count:  # fewer images than parts: the first parts get them
        last = next(name for name in reversed(sizes) if sizes[name])
        sizes[last] -= 1
    for _ in range(count - sum(sizes.values())):
        poorest = max(shares, key=lambda name: shares[name] / (2 * sizes[name] + 1))
        sizes[poorest] += 1
    return sizes
