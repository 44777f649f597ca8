"""A look at a source before anything is made of it: classes, sizes, splits, faults.

pictures -> `Survey`, and in words what it found.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.decoding import Decoding, Fit
from pipeline.data.manifest import KEPT, SPLITS, Row
from pipeline.intake.judging import judge
from pipeline.intake.sources import Picture
from pipeline.intake.splitting import Shares, assign

_THUMBNAIL_PX = 32
_UNEVEN = 3
_SHOWN = 20


@dataclass(frozen=True)
class Survey:
    """What a source holds, split as prepare would.

    Attributes:
        rows: A row a picture, with split and verdict.
        reasons: Path -> why a file is not used.
        given: The splits that the source itself names.
    """

    rows: list[Row]
    reasons: dict[str, str]
    given: tuple[str, ...]

    @property
    def kept(self) -> list[Row]:
        """The pictures that can be used."""
        return [row for row in self.rows if row.verdict in KEPT]

    def count(self, split: str) -> int:
        """How many pictures a split has."""
        return sum(row.split == split for row in self.kept)

    @property
    def classes(self) -> dict[str, int]:
        """Class -> pictures, sorted by name."""
        return dict(sorted(Counter(row.label for row in self.kept).items()))

    @property
    def imbalance(self) -> float:
        """How many times the largest class is the smallest."""
        sizes = self.classes.values()
        return max(sizes) / min(sizes) if sizes else 1.0


def survey(pictures: Iterable[Picture], shares: Shares, seed: int) -> Survey:
    """Read and decode every picture, and split them; keeps no pixels.

    Args:
        pictures: Of a source.
        shares: How much goes to which split where the source gives none.
        seed: Chooses which.
    """
    rows, bad = [], {}
    for row, verdict in judge(pictures, _THUMBNAIL_PX, Decoding(Fit.squash), "look"):
        rows.append(row)
        if isinstance(verdict, str):
            bad[row.path] = verdict
    given = {row.split for row in rows if row.split}
    assigned, reasons = assign(rows, bad, shares, seed)
    return Survey(assigned, reasons, tuple(split for split in SPLITS if split in given))


def describe(found: Survey) -> Iterator[str]:
    """Tell a survey, a line at a time."""
    classes = found.classes
    yield f"{len(found.kept)} pictures of {len(classes)} classes"
    width = max(map(len, list(classes)[:_SHOWN]), default=0)
    for name, count in list(classes.items())[:_SHOWN]:
        yield f"  {name:{width}}  {count}"
    if len(classes) > _SHOWN:
        yield f"  and {len(classes) - _SHOWN} more classes"
    if found.imbalance >= _UNEVEN:
        yield (
            f"  uneven: the largest class has {found.imbalance:.1f} times the pictures of the "
            "smallest, so look at macro_f1 beside accuracy"
        )
    if found.kept:
        shorter = np.array([min(row.width, row.height) for row in found.kept])
        low, middle, high = np.percentile(shorter, [5, 50, 95])
        yield (
            f"sizes: the shorter side is {middle:.0f} px (median; 90 % are {low:.0f} to {high:.0f})"
        )
    if found.given:
        yield f"splits in the source: {', '.join(found.given)}"
    else:
        yield "splits in the source: none, so they are drawn at random, class by class"
    for column in found.kept[0].extra if found.kept else ():
        values = {row.extra[column] for row in found.kept}
        if len(SPLITS) <= len(values) <= len(found.kept) / 2:
            yield (
                f"column {column} has {len(values)} values: data.group={column} would bring the "
                "pictures of each into one split"
            )
    yield "split: " + ", ".join(f"{found.count(split)} {split}" for split in SPLITS)
    duplicates = sum(row.verdict == "duplicate" for row in found.rows)
    if duplicates:
        yield f"copies of another picture, pixel for pixel: {duplicates}; each stays in its split"
    if found.reasons:
        yield f"{len(found.reasons)} files are not used:"
        for path, reason in list(found.reasons.items())[:5]:
            yield f"  {path}: {reason}"
        if len(found.reasons) > 5:
            yield f"  and {len(found.reasons) - 5} more, which prepare lists in quarantine.csv"
