"""What several images of one object in both splits pretend: accuracy with and without `data.group`.

python -m benchmarks.leak [SEEDS]

Houses of ../shared/data/houses_small.tar, four photographs each, bathroom, bedroom, front and
kitchen; is the house dearer than the median? Splits are drawn once by photograph, so that most
houses lie in several, and once with data.group=house. The head alone, EfficientNet-Lite0.
"""

import csv
import sys
import tarfile
from pathlib import Path

import numpy as np

from benchmarks import side_by_side, workshop
from benchmarks.accuracy import Project

WEIGHTS = workshop.SHARED / "weights/efficientnet_lite0.keras"
TABLE = "images/houses_small/price.csv"


def write_table(folder: Path) -> None:
    """List the photographs with the house and whether it is dear."""
    with tarfile.open(workshop.SHARED / "data/houses_small.tar") as archive:
        archive.extractall(folder / "images", filter="data")
    with (folder / "images/houses_small/houses.csv").open() as file:
        rows = list(csv.DictReader(file))
    middle = float(np.median([float(row["price"]) for row in rows]))
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "house"])
        for row in rows:
            label = "dear" if float(row["price"]) > middle else "cheap"
            writer.writerow([row["path"], label, row["house"]])


def main(seeds: int) -> None:
    actual: dict[str, list[float]] = {}
    with workshop.copy() as folder:
        write_table(folder)
        command = [sys.executable, "-m", "pipeline", "init", TABLE, "--force"]
        workshop.run(folder, *command, "--backbone", str(WEIGHTS))
        for seed in range(seeds):
            for name, words in (("by photograph", ()), ("by house", ("data.group=house",))):
                head, _ = Project(folder, seed, words).tuned("finetune.cut=none")
                actual.setdefault(name, []).append(head.accuracy)
                print(name, head.accuracy, file=sys.stderr, flush=True)
    lines = [
        f"`python -m benchmarks.leak {seeds}`: is a house dearer than the median? Four",
        "photographs a house; test accuracy of the head alone, medians (ranges) over seeds.",
        "",
        "| splits | test accuracy |",
        "|---|---|",
        *(f"| {name} | {side_by_side.middle(own, '.3f')} |" for name, own in actual.items()),
    ]
    side_by_side.write("Groups", "\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
