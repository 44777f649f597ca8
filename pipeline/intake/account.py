"""Account for every file of a source: files seen = used + quarantined + left out.

rows + files left out -> counts for summary.json, one line for people, left_out.csv.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.manifest import KEPT, Row
from pipeline.intake import sources
from pipeline.intake.sources import Sample
from pipeline.storage.tables import write_table

FILE = "left_out.csv"


@dataclass(frozen=True)
class Account:
    """Counts of files, and the files that are in no split.

    Attributes:
        used: Number of files in a split, including duplicates.
        quarantined: Number of files that cannot be used; quarantine.csv has the reasons.
        left_out: Files that were not read, each with its reason.
        unmatched: Patterns of `data.ignore` that match nothing.
    """

    used: int
    quarantined: int
    left_out: Sequence[Sample]
    unmatched: Sequence[str]

    @classmethod
    def of(cls, rows: Sequence[Row], left_out: Sequence[Sample], ignore: Sequence[str]) -> Account:
        """Count the files that were read, by verdict, and all others."""
        used = sum(row.verdict in KEPT for row in rows)
        return cls(used, len(rows) - used, left_out, sources.unmatched(ignore, left_out))

    def _by_reason(self) -> dict[str, list[str]]:
        files: dict[str, list[str]] = defaultdict(list)
        for image in self.left_out:
            if not image.path.endswith("/"):
                files[image.left_out].append(image.path)
        return files

    def to_json(self) -> dict[str, Any]:
        """Return the counts for summary.json; `seen` is the sum of the others."""
        left_out = {reason: len(paths) for reason, paths in self._by_reason().items()}
        seen = self.used + self.quarantined + sum(left_out.values())
        return {
            "seen": seen,
            "used": self.used,
            "quarantined": self.quarantined,
            "left_out": left_out,
            "folders": {p.path: p.left_out for p in self.left_out if p.path.endswith("/")},
        }

    def __str__(self) -> str:
        """Summarise the counts in one line."""
        counts = self.to_json()
        more = [
            f"{len(paths)} {reason} (the first is {paths[0]})"
            for reason, paths in self._by_reason().items()
        ]
        more += [f"{path} is {reason}" for path, reason in counts["folders"].items()]
        more += [f"data.ignore={pattern} matches nothing" for pattern in self.unmatched]
        return (
            f"{counts['seen']} files: {self.used} used, {self.quarantined} quarantined, "
            f"{sum(counts['left_out'].values())} left out"
            + (f": {', '.join(more)}" if more else "")
        )

    def write(self, folder: Path) -> None:
        """Write left_out.csv, with the columns path and reason."""
        write_table(
            folder / FILE, ("path", "reason"), [(p.path, p.left_out) for p in self.left_out]
        )
