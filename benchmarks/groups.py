"""What a split that separates images of one patient hides.

python -m benchmarks.groups [SEEDS]

Brain scans with and without a tumour (../shared/data/brain_yes_no.tar), in the way that tutorials
enlarge them: each scan COPIES times, flipped, turned, shifted, lighter or darker. The same recipe
(EfficientNet-Lite0, the head that `init` chooses) is trained and tested twice: with copies divided
at random, and with `data.group`, which keeps the copies of a scan in one split.
"""

import csv
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks import side_by_side, workshop
from benchmarks.accuracy import Outcome, Project

COPIES, SIZE_PX = 8, 224
WEIGHTS = workshop.SHARED / "weights/efficientnet_lite0.keras"
WAYS = {"copies divided at random": (), "data.group=scan": ("data.group=scan",)}


def enlarge(folder: Path) -> Path:
    """Write the copies of all scans; returns a csv file with path, label and scan."""
    with tarfile.open(workshop.SHARED / "data/brain_yes_no.tar") as archive:
        archive.extractall(folder / "scans", filter="data")
    target, rng, rows = folder / "images/brain", np.random.default_rng(0), []
    target.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.glob("scans/brain_yes_no/*/*"))):
        with Image.open(path) as file:
            scan = file.convert("RGB").resize((SIZE_PX, SIZE_PX))
        for copy in range(COPIES):
            image = scan.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if copy % 2 else scan
            shift = tuple(rng.uniform(-0.1, 0.1, 2) * SIZE_PX)
            image = image.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR, translate=shift)
            image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3))
            name = f"{number}_{copy}.png"
            image.save(target / name)
            rows.append([name, path.parent.name, number])
    listing = target / "copies.csv"
    with listing.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "scan"], *rows])
    return listing


def main(seeds: int) -> None:
    with workshop.copy() as folder:
        listing = enlarge(folder).relative_to(folder)
        init = [sys.executable, "-m", "pipeline", "init", str(listing), "--force"]
        workshop.run(folder, *init, "--backbone", str(WEIGHTS))
        actual: dict[str, list[Outcome]] = {way: [] for way in WAYS}
        for seed in range(seeds):
            for way, words in WAYS.items():
                project = Project(folder, seed, words)
                project.stage("extract_features")
                project.stage("train_head")
                actual[way].append(project.judged("head", 0))
                print(f"seed {seed}, {way}: {actual[way][-1].accuracy:.3f}", file=sys.stderr)
    lines = [
        f"`python -m benchmarks.groups {seeds}`: medians (ranges) over {seeds} seeds; {COPIES}",
        "copies of each scan, EfficientNet-Lite0, logistic head.",
        "",
        "| splits | test accuracy | log loss |",
        "|---|---|---|",
    ]
    for way, outcomes in actual.items():
        accuracy = side_by_side.middle([item.accuracy for item in outcomes], ".3f")
        loss = side_by_side.middle([item.log_loss for item in outcomes], ".3f")
        lines.append(f"| {way} | {accuracy} | {loss} |")
    side_by_side.write("Groups", "\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
