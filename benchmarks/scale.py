"""`dvc repro` on many small images and many classes: seconds and memory per stage.

python -m benchmarks.scale [IMAGES:CLASSES ...]

Images of 32 px that are drawn here, 8 px for glyph_cnn, which gives 2,048 features; a linear head
for 2 epochs, one epoch of fine-tuning. Memory is what processes have for themselves
(`RssAnon` of Linux): pages of files that are mapped can be taken from them at any time.
"""

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from tqdm import tqdm

from benchmarks import side_by_side, workshop
from pipeline.storage.outputs import STAGES

CASES = ("10000:10", "100000:10", "100000:1000", "100000:10000")
PARAMS = """seed: 0
threads: 2
data: {use: folder, path: images}
backbone: {use: glyph_cnn, path: conf/backbone/glyph_cnn.yaml}
head: {use: linear}
augment: {use: none}
forward: {engine: openvino}
prepare: {image_size: 8, train_fraction: 0.5, val_fraction: 0.1}
extract_features: {batch_size: 32}
train_head: {epochs: 2, batch_size: 256}
finetune: {cut: block3_conv1, epochs: 1, batch_size: 256}
evaluate: {draws: 200}
sweep: {n_trials: 2}
"""


def draw(folder: Path, images: int, classes: int) -> None:
    """Noise around a pattern of the class, a PNG each."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (classes, 4, 4, 3))
    for number in tqdm(range(images), desc="drawing", unit="image", disable=None):
        label = number % classes
        pixels = patterns[label].repeat(8, 0).repeat(8, 1) + rng.integers(-60, 61, (32, 32, 3))
        path = folder / f"c{label:05}" / f"{number:07}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, compress_level=0)


@contextmanager
def watched() -> Iterator[dict[str, dict[str, float]]]:
    """Seconds and most memory in MB of every stage that runs meanwhile."""
    seen: dict[str, dict[str, float]] = defaultdict(lambda: {"mb": 0.0, "first": time.time()})
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                try:
                    words = process.cmdline()
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except (psutil.Error, OSError):
                    continue
                if "pipeline" in words and words[-1] in STAGES:
                    anonymous = [x for x in status.splitlines() if x.startswith("RssAnon")]
                    stage = seen[words[-1]]
                    stage["mb"] = max(stage["mb"], int(anonymous[0].split()[1]) / 1000)
                    stage["seconds"] = time.time() - stage["first"]

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def measure(images: int, classes: int) -> tuple[dict[str, dict[str, float]], float, float]:
    """Stage -> seconds and MB; total seconds; GB on disk, without the images."""
    with workshop.copy() as folder:
        (folder / "params.yaml").write_text(PARAMS)
        draw(folder / "images", images, classes)
        started = time.time()
        with watched() as seen:
            workshop.run(folder, "dvc", "repro")
        seconds = time.time() - started
        places = ["outputs", ".work", ".dvc/cache", "mlartifacts"]
        listing = subprocess.check_output(["du", "-sck", *places], cwd=folder, text=True)
        return dict(seen), seconds, int(listing.splitlines()[-1].split()[0]) / 1e6


def main(cases: tuple[str, ...]) -> None:
    lines = [
        f"`python -m benchmarks.scale {' '.join(cases)}`: seconds and peak MB per stage, with its",
        "start of 3 to 8 s; `dvc repro` in all, DVC's hashing included; GB on the disk.",
        "",
        "| images, classes | " + " | ".join(STAGES) + " | `dvc repro` | GB |",
        "|---|" + "---|" * (len(STAGES) + 2),
    ]
    for case in cases:
        images, classes = map(int, case.split(":"))
        seen, seconds, disk_gb = measure(images, classes)
        cells = [f"{seen[stage]['seconds']:.0f} s, {seen[stage]['mb']:.0f}" for stage in STAGES]
        lines.append(
            f"| {images:,}, {classes:,} | {' | '.join(cells)} | {seconds:.0f} s | {disk_gb:.1f} |"
        )
        print(lines[-1], file=sys.stderr)
    side_by_side.write("Many images, many classes", "\n".join(lines))


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or CASES)
