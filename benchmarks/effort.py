"""Effort by what it can gain: fine-tuning as `auto` chooses it, and always with full effort.

python -m benchmarks.effort [SEEDS [SET ...]]

Each data set in ../shared/data as `init` sets it up, MobileNetV2 from $KERAS_HOME; each seed draws
other splits. Full effort is the low cut with a peak rate of 3e-4 for 12 epochs and at least 250
steps, without early stopping. Both trainings of a seed begin with the same features, views and
head, in turn, each in a process of its own, with an empty cache of activations; seconds are those
of the stage finetune.
"""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np

from benchmarks import accuracy, side_by_side, workshop
from benchmarks.accuracy import Outcome, Project

SETS = ("hymenoptera", "sign_digits", "cifar10_small", "brain_yes_no", "rooms")
STEPS, EPOCHS, RATE = 250, 12, 3e-4
CUT = "block_4_expand"


def full_effort(images: int) -> tuple[str, ...]:
    """Settings of the full effort for a number of training images."""
    steps = math.ceil(images / 32)
    epochs = max(EPOCHS, math.ceil(STEPS / steps))
    return (f"finetune.cut={CUT}", f"finetune.epochs={epochs}", f"finetune.learning_rate={RATE}")


def tuned(project: Project, *words: str) -> tuple[Outcome, str]:
    """Fine-tune; also returns what was decided."""
    shutil.rmtree(project.folder / ".work", ignore_errors=True)
    seconds = project.stage("finetune", *words)
    path = project.folder / "outputs/finetune/derived.json"
    derived = json.loads(path.read_text()) if path.exists() else {}
    summary = json.loads((project.folder / "outputs/finetune/summary.json").read_text())
    cut = derived.get("finetune.cut", {"value": CUT})["value"]
    return project.judged("model", seconds), f"{cut}, {summary['epochs']} epochs"


def measure(folder: Path, seed: int) -> dict[str, tuple[Outcome, str]]:
    """Both on one draw of the data."""
    project = Project(folder, seed)
    extracted = project.stage("extract_features")
    head = project.judged("head", extracted + project.stage("train_head"))
    summary = json.loads((folder / "outputs/train_head/summary.json").read_text())
    manifest = (folder / "outputs/prepare/manifest.csv").read_text().splitlines()
    images = sum(",train," in line and ",quarantined" not in line for line in manifest)
    error = f"head wrong on {1 - summary['val_accuracy']:.1%} of val"
    ways = ["full", "auto"] if seed % 2 else ["auto", "full"]
    words = {"full": full_effort(images), "auto": ()}
    actual = {way: tuned(project, *words[way]) for way in ways}
    return {"head": (head, error), "full": actual["full"], "auto": actual["auto"]}


def difference(own: list[Outcome], other: list[Outcome]) -> str:
    """Difference of log losses with its paired bootstrap interval over images."""
    by_image: dict[str, list[float]] = {}
    for item, two in zip(own, other, strict=True):
        for path, loss in item.losses.items():
            by_image.setdefault(path, []).append(loss - two.losses[path])
    return accuracy.interval([float(np.mean(values)) for values in by_image.values()], ".3f")


def main(seeds: int, sets: list[str]) -> None:
    lines = [
        f"`python -m benchmarks.effort {seeds}`: medians (ranges) over {seeds} seeds; gains of",
        "`auto` over full effort with paired 95 % intervals over images: points of accuracy, and",
        "log loss (lower is better).",
        "",
        "| data | effort | decisions | seconds | accuracy | log loss | gain | log loss, gain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    spent = {"full": 0.0, "auto": 0.0}
    for name in sets:
        with workshop.copy() as folder:
            accuracy.project_of(folder, name, "mobilenet_v2")
            results = [measure(folder, seed) for seed in range(seeds)]
        own = [result["auto"][0] for result in results]
        for way in ("head", "full", "auto"):
            outcomes = [result[way][0] for result in results]
            full = [result["full"][0] for result in results]
            if way in spent:
                spent[way] += float(np.median([item.seconds for item in outcomes]))
            cells = [
                "; ".join(dict.fromkeys(result[way][1] for result in results)),
                side_by_side.middle([item.seconds for item in outcomes], ".0f"),
                side_by_side.middle([item.accuracy for item in outcomes], ".3f"),
                side_by_side.middle([item.log_loss for item in outcomes], ".3f"),
                accuracy.interval(accuracy.gains(own, full)) if way == "auto" else "",
                difference(own, full) if way == "auto" else "",
            ]
            lines.append(f"| {name} | {way} | {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    share = spent["auto"] / spent["full"]
    lines += ["", f"Sum of the medians: {spent['auto']:.0f} of {spent['full']:.0f} s, {share:.0%}."]
    side_by_side.write("Effort", "\n".join(lines))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    main(count, sys.argv[2:] or list(SETS))
