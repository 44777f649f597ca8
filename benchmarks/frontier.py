"""The frontier: test accuracy against minutes, for this project and what people use otherwise.

python -m benchmarks.frontier TORCH_PYTHON [SEEDS [ROW ...]]

TORCH_PYTHON is an interpreter with the packages of benchmarks/torch.txt. A row is a data set in
../shared/data, or one with so many training images a class (`sign_digits-20`). Every system has
the same prepared images and splits, EfficientNet-Lite0 with the same ImageNet weights, and two
threads; each runs in a process of its own, in turn, and the order changes with the seed:

- the pipeline: as `init` leaves it, nothing edited; the head alone: without its fine-tuning;
- logistic: scikit-learn's logistic regression on the features, as it is;
- Keras guide: benchmarks/keras_guide.py;
- fastai: `fine_tune`, and timm: AdamW with a cosine schedule (benchmarks/torch_peer.py).

Minutes are from prepared images to the model, processes' starts included. Log losses are those at
the temperature that fits the validation split best. Results are kept in benchmarks/runs, so that an
interrupted run goes on where it ended, and seeds can be added; remove files to run them anew.
"""

import csv
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import accuracy, side_by_side, workshop
from benchmarks.accuracy import Outcome, Project
from pipeline.data.manifest import Manifest

ROWS = [
    *(f"{name}-{count}" for count in accuracy.FEW for name in accuracy.SETS),
    *("brain_yes_no", *accuracy.SETS),
]
WEIGHTS = workshop.SHARED / "weights/efficientnet_lite0.keras"
KEPT = workshop.PROJECT / "benchmarks/runs"
PLOT = workshop.PROJECT / "docs/frontier.png"
_MINUTES = (0.2, 0.5, 1, 2, 5, 10, 20)
OWN, HEAD = "the pipeline", "head alone"
RIVALS = ("logistic", "Keras guide", "fastai", "timm")


class Contest:
    """One row and seed: a project with prepared images, in which each system runs."""

    def __init__(self, folder: Path, row: str, seed: int, python: str) -> None:
        self._folder, self._seed, self._python = folder, seed, python
        name, _, count = row.partition("-")
        accuracy.project_of(folder, name, str(WEIGHTS))
        self._project = Project(folder, seed)
        if count:
            self._reduce(folder / "images" / name / "few.csv", int(count))

    def _reduce(self, path: Path, count: int) -> None:
        """Set the project up anew with `count` training images a class, and all test images."""
        data = Manifest(self._folder / "outputs/prepare")
        most = {"train": count, "val": max(5, math.ceil(count / 4)), "test": len(data.rows)}
        rng, chosen = np.random.default_rng(self._seed), []
        for split, images in most.items():
            rows = rng.permutation(data.indices(split))
            for label in range(len(data.classes)):
                chosen += [data.rows[row] for row in rows[data.targets[rows] == label][:images]]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split"])
            writer.writerows([row.path, row.label, row.split] for row in chosen)
        words = [sys.executable, "-m", "pipeline", "init", str(path.relative_to(self._folder))]
        workshop.run(self._folder, *words, "--force", "--backbone", str(WEIGHTS))
        self._project = Project(self._folder, self._seed)

    def own(self) -> dict[str, Outcome]:
        """The pipeline and its head."""
        head, pipeline = self._project.tuned()
        return {HEAD: head, OWN: pipeline}

    def rival(self, name: str) -> dict[str, Outcome]:
        """Another system, which writes its probabilities of all images."""
        command = {
            "logistic": [sys.executable, "-m", "benchmarks.plain_logistic"],
            "Keras guide": [sys.executable, "-m", "benchmarks.keras_guide"],
        }.get(name, [self._python, str(workshop.PROJECT / "benchmarks/torch_peer.py"), name])
        started = time.perf_counter()
        workshop.run(self._folder, *command, str(self._seed))
        return {name: self._project.judged("rival", time.perf_counter() - started)}


def packed(outcome: Outcome) -> str:
    """Write an outcome: right or wrong and log loss of each test image, in the order of paths."""
    paths = sorted(outcome.right)
    values = {
        "right": "".join(str(int(outcome.right[path])) for path in paths),
        "losses": " ".join(f"{outcome.losses[path]:.3f}" for path in paths),
        "log_loss": round(outcome.log_loss, 4),
        "seconds": round(outcome.seconds, 1),
    }
    return json.dumps(values)


def unpacked(text: str) -> Outcome:
    """Read an outcome; images are named by their place."""
    values = json.loads(text)
    right = {str(place): sign == "1" for place, sign in enumerate(values["right"])}
    losses = {str(place): float(loss) for place, loss in enumerate(values["losses"].split())}
    return Outcome(right, losses, values["log_loss"], values["seconds"])


def outcomes(row: str, seed: int, python: str) -> dict[str, Outcome]:
    """All systems on a row, from the last run where it has them."""
    folder = KEPT / row / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name.replace(' ', '_')}.json" for name in (OWN, HEAD, *RIVALS)}
    if not all(file.exists() for file in files.values()):
        with workshop.copy() as scratch:
            contest = Contest(scratch, row, seed, python)
            turns: dict[str, Callable[[], dict[str, Outcome]]] = {OWN: contest.own}
            turns |= {name: partial(contest.rival, name) for name in RIVALS}
            order = list(turns)
            for name in order[seed % len(order) :] + order[: seed % len(order)]:
                if not files[name].exists():
                    for system, outcome in turns[name]().items():
                        files[system].write_text(packed(outcome) + "\n")
                        report = f"{outcome.accuracy:.3f}, {outcome.seconds:.0f} s"
                        print(f"{row}, seed {seed}: {system} {report}", file=sys.stderr, flush=True)
    return {name: unpacked(file.read_text()) for name, file in files.items()}


def verdict(values: list[float]) -> str:
    """Whether a gain, one value per image, is above zero by its interval."""
    low, high = accuracy.bounds(values)
    return "above" if low > 0 else "below" if high < 0 else "level"


def counted(verdicts: list[str]) -> str:
    return ", ".join(f"{word} on {verdicts.count(word)}" for word in ("above", "level", "below"))


def standing(results: list[dict[str, Outcome]]) -> tuple[str, str]:
    """The line of a row against its best rival, and whether the pipeline is above that."""
    middles = {
        name: float(np.median([result[name].accuracy for result in results])) for name in RIVALS
    }
    best = max(middles, key=lambda name: middles[name])
    own, other, floor = ([item[name] for item in results] for name in (OWN, best, "logistic"))
    gains = accuracy.gains(own, other)
    minutes = [np.median([result[name].seconds for result in results]) for name in RIVALS]
    share = float(np.median([item.seconds for item in own]) / np.median(minutes))
    loss = accuracy.interval(accuracy.differences(own, floor, lambda item: item.losses), ".3f")
    line = f"{best} | {accuracy.interval(gains)} | {verdict(gains)} | {share:.2f} | {loss}"
    return line, verdict(gains)


def summary(rows: dict[str, list[dict[str, Outcome]]]) -> list[str]:
    """A line for each system: how the pipeline compares over all rows."""
    lines = []
    for name in (*RIVALS, HEAD):
        pairs = [
            ([item[OWN] for item in results], [item[name] for item in results])
            for results in rows.values()
        ]
        gains = [accuracy.gains(own, other) for own, other in pairs]
        points = np.median([np.mean(values) for values in gains])
        times = np.median(
            [
                np.median([item.seconds for item in own])
                / np.median([item.seconds for item in other])
                for own, other in pairs
            ]
        )
        verdicts = [verdict(values) for values in gains]
        lines.append(f"| {name} | {points:+.1f} | {counted(verdicts)} | {times:.1f} |")
    return lines


def draw(rows: dict[str, list[dict[str, Outcome]]]) -> None:
    """Draw accuracy with its interval over images against minutes, a panel a row."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

    columns = min(4, math.ceil(math.sqrt(len(rows))))
    lines = math.ceil(len(rows) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.2 * columns, 2.7 * lines), squeeze=False)
    marks = dict(zip((OWN, HEAD, *RIVALS), "o^sDvP", strict=True))
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, (row, results) in zip(axes.flat, rows.items(), strict=False):
        for name, mark in marks.items():
            own = [result[name] for result in results]
            right = accuracy.means([item.right for item in own])
            minutes = np.median([item.seconds for item in own]) / 60
            low, high = accuracy.bounds(right)
            middle = float(np.mean(right))
            ends = [[middle - low], [high - middle]]
            axis.errorbar(minutes, middle, ends, fmt=mark, label=name, capsize=2)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(_MINUTES))
        axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(row.replace("-", ", ") + (" a class" if "-" in row else ""), fontsize=9)
        axis.grid(alpha=0.3)
    figure.supxlabel("minutes")
    figure.supylabel("test accuracy")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="upper center", ncols=len(names), fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(PLOT, dpi=110)


def main(python: str, seeds: int, names: list[str]) -> None:
    rows = {name: [outcomes(name, seed, python) for seed in range(seeds)] for name in names}
    standings = {name: standing(results) for name, results in rows.items()}
    count = f"{seeds} seeds" if seeds > 1 else "one seed"
    verdicts = [word for _, word in standings.values()]
    lines = [
        f"`python -m benchmarks.frontier TORCH_PYTHON {seeds}`: medians (ranges) over {count};",
        "gains are the pipeline's, in points of accuracy, with paired 95 % intervals over images.",
        f"Against the best rival of each of the {len(rows)} rows, the pipeline is",
        f"{counted(verdicts)}.",
        "",
        "| system | median gain of the pipeline | the pipeline is | its time / theirs |",
        "|---|---|---|---|",
        *summary(rows),
        "",
        "| data | best rival | gain | | time / median rival's | log loss against logistic |",
        "|---|---|---|---|---|---|",
        *(f"| {name} | {line} |" for name, (line, _) in standings.items()),
        "",
        "| data | system | test accuracy | log loss | seconds | gain of the pipeline |",
        "|---|---|---|---|---|---|",
    ]
    for name, results in rows.items():
        lines += accuracy.rows(name, results)
    draw(rows)
    side_by_side.write("Frontier", "\n".join([*lines, "", f"![frontier](../docs/{PLOT.name})"]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3, sys.argv[3:] or ROWS)
