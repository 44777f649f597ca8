"""Teaching: labels that a person needs in several orders, and `add` against a full retraining.

python -m benchmarks.teach [SEEDS [order | add]]

Order: a simulated person labels the images of each data set in ../shared/data, with features of
EfficientNet-Lite0. The head of the labelling page is fitted after every batch, and judged on the
test images, until it has 95 % of the accuracy with all labels. Every order has the same head:

- ours: `pipeline.teaching.order`; page: every fifth image is drawn at random, as on the page;
- random;
- margin: the least certain images (Scheffer et al. 2001);
- k-center: the image farthest from all labelled ones (Sener and Savarese 2018);
- TypiClust: the most typical image of each region without a label (Hacohen et al. 2022);
- BADGE (Ash et al. 2020), of scikit-activeml, if it is installed.

Add: a pipeline runs without the last class (without 50 training images on ants and bees, which are
two classes), `add` adds it from 43 training and validation images, and a second pipeline runs with
everything. Both are judged on the same test images, those of the new class included.
"""

import csv
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import accuracy, side_by_side, workshop
from benchmarks.accuracy import Project
from pipeline.data import predictions
from pipeline.data.manifest import Manifest, Row
from pipeline.data.predictions import Predictions
from pipeline.intake import label_file
from pipeline.teaching import order
from pipeline.teaching.learner import Learned, Learner

WEIGHTS = workshop.SHARED / "weights/efficientnet_lite0.keras"
BATCH = {"hymenoptera": 2, "sign_digits": 5, "cifar10_small": 10}
GOAL = 0.95
Order = Callable[[np.ndarray, Learned, list[int], int, np.random.Generator], np.ndarray]


def rest(places: np.ndarray, labelled: list[int]) -> np.ndarray:
    return np.setdiff1d(np.arange(len(places)), labelled)


def ours(places, learned, labelled, count, rng):
    return order.suggest(places, learned.probabilities, labelled, count)


def page(places, learned, labelled, count, rng):
    """The page's order: one image in five is drawn at random, of a fifth that is held out."""
    held_out = label_file.held_out([str(row) for row in range(len(places))])
    useful = order.suggest(places, learned.probabilities, labelled, count, held_out)
    return order.mixed(useful.tolist(), held_out, labelled, count)


def at_random(places, learned, labelled, count, rng):
    return rng.permutation(rest(places, labelled))[:count]


def margin(places, learned, labelled, count, rng):
    if learned.probabilities.shape[1] < 2:
        return at_random(places, learned, labelled, count, rng)
    others = rest(places, labelled)
    ranked = np.sort(learned.probabilities[others], axis=1)
    return others[np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")[:count]]


def k_center(places, learned, labelled, count, rng):
    chosen = list(labelled) or [int(rng.integers(len(places)))]
    nearest = order.distances(places, places[chosen]).min(axis=1)
    fresh = [] if labelled else chosen[:]
    while len(fresh) < count:
        fresh.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, order.distances(places, places[fresh[-1:]])[:, 0])
    return np.array(fresh)


def typiclust(places, learned, labelled, count, rng):
    before = np.array(sorted(labelled), np.int64)
    return order.typical(places, before, rest(places, labelled), count)


def badge(places, learned, labelled, count, rng):
    from skactiveml.classifier import SklearnClassifier
    from skactiveml.pool import Badge
    from sklearn.linear_model import LogisticRegression

    truth = np.full(len(places), np.nan)
    truth[labelled] = TRUTH[labelled]
    head = SklearnClassifier(LogisticRegression(C=0.1, max_iter=50), classes=np.unique(TRUTH))
    query = Badge(random_state=int(rng.integers(1 << 30)))
    return query.query(places, truth, head, batch_size=count)


ORDERS: dict[str, Order] = {
    "random": at_random,
    "ours": ours,
    "page": page,
    "margin": margin,
    "k-center": k_center,
    "TypiClust": typiclust,
}
if importlib.util.find_spec("skactiveml"):
    ORDERS["BADGE"] = badge
TRUTH = np.zeros(0)


def needed(
    data: Manifest, features: np.ndarray, name: str, batch: int, seed: int, most: float
) -> float:
    """Labels until the goal is reached; infinite if they are more than `most`."""
    global TRUTH
    pool, test = np.concatenate([data.indices("train"), data.indices("val")]), data.indices("test")
    rng = np.random.default_rng(seed)
    # Every seed sees nine tenths of the pool, so that an order without chance differs, too.
    pool = np.sort(rng.permutation(pool)[: round(0.9 * len(pool))])
    learner = Learner(features[np.concatenate([pool, test])])
    every, TRUTH = np.concatenate([data.targets[pool], data.targets[test]]), data.targets[pool]
    places, names = learner.reduced[: len(pool)], data.classes

    def judged(rows: list[int]) -> tuple[Learned, float]:
        learned = learner.fit({row: names[every[row]] for row in rows}, cross_validate=False)
        answers = np.array([names.index(own) for own in learned.classes])
        chosen = answers[learned.probabilities[len(pool) :].argmax(axis=1)]
        return learned, float((chosen == data.targets[test]).mean())

    _, best = judged(list(range(len(pool))))
    labelled: list[int] = []
    learned, goal = learner.fit({}), GOAL * best
    while len(labelled) < min(most, len(pool)):
        present = Learned(
            learned.classes,
            learned.probabilities[: len(pool)],
            learned.rows,
            learned.targets,
            learned.out_of_fold,
        )
        labelled += map(int, ORDERS[name](places, present, labelled, batch, rng))
        learned, reached = judged(labelled)
        if reached >= goal:
            return len(labelled)
    return float("inf")


def orders(seeds: int) -> None:
    lines = [
        f"Labels until {100 * GOAL:.0f} % of the accuracy with all labels: medians (ranges) over",
        f"{seeds} seeds, and each seed, inf for more than three times those of random order. The",
        "last column is the median over seeds of the labels relative to random order.",
        "",
        "| data | order | labels | each seed | relative to random |",
        "|---|---|---|---|---|",
    ]
    ratios: dict[str, list[float]] = {name: [] for name in ORDERS}
    for name in accuracy.SETS:
        with workshop.copy() as folder:
            accuracy.project_of(folder, name, str(WEIGHTS))
            project = Project(folder, 0)
            project.stage("extract_features")
            data = Manifest(folder / "outputs/prepare")
            features = np.load(folder / "outputs/extract_features/features.npy")
            most = [float("inf")] * seeds
            for own in ORDERS:
                with threadpool_limits(2):
                    values = [
                        needed(data, features, own, BATCH[name], s, most[s]) for s in range(seeds)
                    ]
                if own == "random":
                    most = [3 * value for value in values]
                relative = [3 * value / limit for value, limit in zip(values, most, strict=True)]
                ratios[own] += relative
                labels = side_by_side.middle(values, ".0f")
                each = ", ".join(f"{value:.0f}" for value in values)
                lines.append(f"| {name} | {own} | {labels} | {each} | {median(relative):.2f} |")
                print(lines[-1], file=sys.stderr, flush=True)
    listed = ", ".join(f"{own} {median(values):.2f}" for own, values in ratios.items())
    lines += ["", f"Relative to random, the median over data sets and seeds: {listed}."]
    side_by_side.write("Order of labels", "\n".join(lines))


def divided(data: Manifest, seed: int) -> tuple[list[Row], list[Row]]:
    """The images that a pipeline has first, and those that are added to it."""
    rng, last = np.random.default_rng(seed), data.classes[-1]
    learned = [row for row in data.rows if row.split != "test"]
    if len(data.classes) == 2:
        chosen = {learned[place].path for place in rng.permutation(len(learned))[:50]}
        return [r for r in data.rows if r.path not in chosen], [
            r for r in data.rows if r.path in chosen
        ]
    own = [row for row in learned if row.label == last]
    few = [own[place] for place in rng.permutation(len(own))[:43]]
    few = [replace(row, split="train" if n < 35 else "val") for n, row in enumerate(few)]
    first = [row for row in data.rows if row.label != last]
    return first, few + [row for row in data.rows if row.label == last and row.split == "test"]


def piped(folder: Path, name: str, rows: list[Row], seed: int) -> Predictions:
    """A pipeline's predictions for its test images."""
    listing = table(folder, name, rows)
    init = [sys.executable, "-m", "pipeline", "init", str(listing.relative_to(folder)), "--force"]
    workshop.run(folder, *init, "--backbone", str(WEIGHTS))
    project = Project(folder, seed)
    for stage in ("extract_features", "train_head", "finetune", "evaluate"):
        project.stage(stage)
    return predictions.read(folder / "outputs/evaluate/predictions.parquet")


def table(folder: Path, name: str, rows: list[Row]) -> Path:
    """A csv file of images with label and split, next to them."""
    (root,) = (path for path in (folder / "images").iterdir() if path.is_dir())
    path = root / f"{name}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label", "split"], *([r.path, r.label, r.split] for r in rows)]
        )
    return path


def adding(seeds: int) -> None:
    lines = [
        "Seconds of the command `add` (process included), what it says of old classes, and macro",
        "F1 on all test images after `add` and after a full retraining with the same images.",
        "",
        "| data | seed | seconds | old classes | macro F1 after add | after retraining |",
        "|---|---|---|---|---|---|",
    ]
    for name in accuracy.SETS:
        for seed in range(seeds):
            with workshop.copy() as folder:
                accuracy.project_of(folder, name, str(WEIGHTS))
                Project(folder, seed)
                first, new = divided(Manifest(folder / "outputs/prepare"), seed)
                piped(folder, "first", first, seed)
                listing = table(folder, "new", new).relative_to(folder)
                words = [sys.executable, "-m", "pipeline", "add", str(listing), f"seed={seed}"]
                started = time.perf_counter()
                lines_of_add = workshop.run(folder, *words, "tracking.enabled=false").splitlines()
                seconds = time.perf_counter() - started
                added = predictions.read(folder / "outputs/added/predictions.parquet")
                whole = piped(folder, "whole", first + new, seed)
            change = next(line.strip() for line in lines_of_add if "accuracy" in line)
            judged = [path.removeprefix("added/") in whole.paths for path in added.paths]
            same = added.of(judged, added.classes)  # without those that `add` drew for its test
            scores = [item.facts().values()["macro_f1"] for item in (same, whole)]
            cells = [name, seed, f"{seconds:.1f}", change, *(f"{score:.3f}" for score in scores)]
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], file=sys.stderr, flush=True)
    side_by_side.write("Adding images", "\n".join(lines))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for part, measure in (("order", orders), ("add", adding)):
        if sys.argv[2:] in ([], [part]):
            measure(count)
