"""Test accuracy and log loss of ways to train on one's own pictures, over seeds.

python -m benchmarks.accuracy [SEEDS]

MobileNetV2 1.0 with its ImageNet weights on the data sets in ../shared/data. Each seed draws
other pictures for validation (and test, where the source gives no split), and trains anew:

- head only: the pipeline's train_head;
- constant rate: fine-tuning at a constant 1e-5 from block_13_expand, stopped by patience and not
  calibrated, which was the recipe of version 0.1 but for the score;
- the pipeline: fine-tuning as it comes, from block_6_expand.
"""

import json
import sys
import tarfile
import time
from pathlib import Path

from benchmarks import side_by_side, workshop

SETS = {"hymenoptera": 224, "sign_digits": 96, "cifar10_small": 96}
"""Data set -> side of its pictures in px."""
CONSTANT = (
    *("finetune.cut=block_13_expand", "finetune.learning_rate=1e-5", "finetune.schedule=constant"),
    *("finetune.warmup=0", "finetune.clip_norm=null", "finetune.weight_decay=0"),
    *("finetune.label_smoothing=0", "finetune.lowest_rate=1", "finetune.interpolate=false"),
    *("finetune.epochs=20", "finetune.patience=5", "finetune.calibrate=false"),
)
RECIPES = {"constant rate": CONSTANT, "the pipeline": ("finetune.cut=block_6_expand",)}
PARAMS = """seed: 0
data: {{use: folder, path: {data}}}
backbone: {{use: mobilenet_v2, path: "{weights}", weights: "${{.path}}"}}
tracking: {{enabled: false}}
prepare: {{image_size: {size}}}
finetune: {{cut: none}}
"""


def measure(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy, log loss and seconds by recipe; those of the shared stages are not counted."""

    def stage(name: str, *words: str) -> float:
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline", name, f"seed={seed}", *words]
        workshop.run(folder, *command)
        return time.perf_counter() - started

    for name in ("prepare", "extract_features"):
        stage(name)
    head = stage("train_head")
    found: dict[str, dict[str, float]] = {}
    for recipe, words in RECIPES.items():
        seconds = stage("finetune", *words)
        stage("evaluate")
        told = json.loads((folder / "outputs" / "evaluate" / "metrics.json").read_text())
        found["head only"] = {**told["head_only"], "seconds": head}
        found[recipe] = {**told["fine_tuned"], "seconds": seconds}
    return found


def main(seeds: int) -> None:
    lines = [
        f"`python -m benchmarks.accuracy {seeds}`: medians (ranges) over {seeds} seeds; seconds",
        "are those of the stage, its start included.",
        "",
        "| data | trained | test accuracy | log loss | seconds |",
        "|---|---|---|---|---|",
    ]
    for name, size in SETS.items():
        with workshop.copy() as folder:
            with tarfile.open(workshop.SHARED / "data" / f"{name}.tar") as archive:
                archive.extractall(folder / "pictures", filter="data")
            weights = workshop.SHARED / workshop.WEIGHTS
            text = PARAMS.format(data=f"pictures/{name}", weights=weights, size=size)
            (folder / "params.yaml").write_text(text)
            results = [measure(folder, seed) for seed in range(seeds)]
        for recipe in results[0]:
            own = [result[recipe] for result in results]
            cells = [
                side_by_side.middle(values, f".{digits}f")
                for key, digits in (("accuracy", 3), ("log_loss", 3), ("seconds", 0))
                for values in [[one[key] for one in own]]
            ]
            lines.append(f"| {name} | {recipe} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    side_by_side.write("Accuracy", "\n".join(lines))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
