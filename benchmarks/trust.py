"""Detection of mislabelled and unknown images, and coverage of prediction sets.

python -m benchmarks.trust [errors] [unknown] [sets]

On the data sets in ../shared/data, each as `init` sets it up, with MobileNetV2.

- errors: 5 % of the images of each class are put into another class' folder; precision and
  recall of outputs/evaluate/label_errors.csv among all images, 3 draws.
- unknown: images of another set, or of a class that was left out, against the test images:
  area under the ROC curve of the strangeness, and the share of foreign images that pass where
  95 % of the test images do (false positives at 95 %); the same by confidence alone and by
  distance alone; and what is flagged as unknown at serve.unknown=0.05.
- sets: what sets at a coverage of 0.9 cover, over 20 draws of the calibration images.
"""

import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from benchmarks import side_by_side, workshop
from pipeline.data.image_file import BadImage, Pixels
from pipeline.data.manifest import CALIBRATION, Manifest
from pipeline.evaluation import label_errors
from pipeline.networks import model_file
from pipeline.networks.trust import typicality
from pipeline.networks.trust.judging import Judge
from pipeline.serving.classifier import Classifier

BACKBONE = "mobilenet_v2"
FLIPPED, DRAWS, FOREIGN = 0.05, 20, 500
STAGES = ("prepare", "extract_features", "train_head", "finetune")
PAIRS = (
    ("hymenoptera", "digits", ""),
    ("hymenoptera", "sign_digits", ""),
    ("sign_digits", "cifar10_small", ""),
    ("sign_digits", "", "9"),
    ("cifar10_small", "", "cat"),
)
"""Dataset, and what is unknown to it: another dataset, or a class left out."""


@contextmanager
def trained(
    name: str, left_out: str = "", stages: tuple[str, ...] = STAGES, *words: str
) -> Iterator[Path]:
    """A copy of the project with one data set, stages run; what is left out lies in left_out/."""
    with workshop.copy() as folder:
        with tarfile.open(workshop.SHARED / "data" / f"{name}.tar") as archive:
            archive.extractall(folder / "images", filter="data")
        for place, path in enumerate(sorted((folder / "images").rglob(left_out or "no class"))):
            (folder / "left_out").mkdir(exist_ok=True)
            shutil.move(path, folder / "left_out" / str(place))
        init(folder, name)
        run(folder, stages, *words)
        yield folder


def init(folder: Path, name: str) -> None:
    command = [sys.executable, "-m", "pipeline", "init", f"images/{name}", "--force"]
    workshop.run(folder, *command, "--backbone", BACKBONE)


def run(folder: Path, stages: tuple[str, ...], *words: str) -> None:
    for stage in stages:
        command = [sys.executable, "-m", "pipeline", stage, "tracking.enabled=false", *words]
        workshop.run(folder, *command)


def flip(folder: Path, seed: int) -> set[str]:
    """Put some images of each class into another class' folder; returns their new paths."""
    rng, moved = np.random.default_rng(seed), set()
    by_class: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            by_class.setdefault(path.parent, []).append(path)
    for place, paths in by_class.items():
        others = [item for item in by_class if item.parent == place.parent and item != place]
        for path in rng.permutation(np.array(paths))[: round(FLIPPED * len(paths))]:
            target = others[rng.integers(len(others))] / f"moved_{path.name}"
            shutil.move(path, target)
            moved.add(target.relative_to(folder).as_posix())
    return moved


def errors(name: str) -> str:
    """Precision and recall, medians of three draws."""
    actual = []
    for seed in range(3):
        with workshop.copy() as folder:
            with tarfile.open(workshop.SHARED / "data" / f"{name}.tar") as archive:
                archive.extractall(folder / "images", filter="data")
            moved = flip(folder / "images" / name, seed)
            init(folder, name)
            run(folder, STAGES[:2])
            data = Manifest(folder / "outputs/prepare")
            features = np.load(folder / "outputs/extract_features/features.npy")
            suspects = label_errors.find(data, features, seed=0, threads=2)
            hits = [data.rows[item.row].path in moved for item in suspects]
            there = sum(row.path in moved for row in data.rows)
            actual.append((np.mean(hits), sum(hits) / there, len(suspects), there))
    middles = [median(column) for column in zip(*actual, strict=True)]
    return f"| {name} | {middles[3]:.0f} | {middles[2]:.0f} | {middles[0]:.2f} | {middles[1]:.2f} |"


def foreign(folder: Path, other: str, classifier: Classifier) -> Pixels:
    """Decoded images that the classifier does not know."""
    if other == "digits":
        files = [folder / f"{n}.png" for n in range(FOREIGN)]
        for file, item in zip(files, load_digits().images, strict=False):
            Image.fromarray((item * 15.9).astype(np.uint8)).save(file)
    else:
        place = folder / "left_out"
        if other:
            with tarfile.open(workshop.SHARED / "data" / f"{other}.tar") as archive:
                archive.extractall(place, filter="data")
        files = sorted(path for path in place.rglob("*") if path.is_file())
        files = list(np.random.default_rng(0).permutation(np.array(files))[:FOREIGN])
    decoded = []
    for file in files:
        try:
            decoded.append(classifier.decode(file.read_bytes()))
        except BadImage:
            continue
    return np.stack(decoded)


def unknown(name: str, other: str, left_out: str) -> str:
    """A line of the table."""
    with trained(name, left_out) as folder:
        path = folder / "outputs/finetune/model.keras"
        classifier, reference = Classifier(path), model_file.reference_of(path)
        data = Manifest(folder / "outputs/prepare")
        ours = classifier.answers(data.images[data.indices("test")])
        theirs = classifier.answers(foreign(folder, other, classifier))
        assert ours.strangeness is not None
        assert theirs.strangeness is not None
        cells = []
        for score in (
            lambda item: item.strangeness,
            lambda item: typicality.doubts(item.probabilities),
            lambda item: typicality.distances(reference.space, item.positions),
        ):
            here, there = score(ours), score(theirs)
            truth = np.repeat([0, 1], [len(here), len(there)])
            area = roc_auc_score(truth, np.concatenate([here, there]))
            passed = (there <= np.quantile(here, 0.95)).mean()
            cells.append(f"{area:.3f}, {passed:.2f}")
        called = f"{1 - ours.known.mean():.1%} and {1 - theirs.known.mean():.1%}"
    what = other or f"its class {left_out}"
    return f"| {name}, {what} | {' | '.join(cells)} | {called} |"


def sets(name: str) -> str:
    """Coverage over draws of the calibration images from these and the test images."""
    with trained(name, "", STAGES, "prepare.calibration_fraction=0.2") as folder:
        path = folder / "outputs/finetune/model.keras"
        classifier, reference = Classifier(path), model_file.reference_of(path)
        data = Manifest(folder / "outputs/prepare")
        rows = np.concatenate([data.indices(CALIBRATION), data.indices("test")])
        labels = data.targets[rows]
        values = classifier.probabilities(data.images, rows)
        count = len(data.indices(CALIBRATION))
        covered, sizes = [], []
        for seed in range(DRAWS):
            drawn = np.random.default_rng(seed).permutation(len(rows))
            aside, test = drawn[:count], drawn[count:]
            misses = np.sort(1 - values[aside, labels[aside]].astype(np.float64))
            judge = Judge(replace(reference, misses=misses), len(data.classes), coverage=0.9)
            actual = np.concatenate(
                [values, np.zeros((len(rows), len(reference.space.axes)))], axis=1
            )
            given = judge(actual[test].astype(np.float32)).labels
            assert given is not None
            covered.append(given[np.arange(len(test)), labels[test]].mean())
            sizes.append(given.sum(axis=1).mean())
    cells = f"{side_by_side.middle(covered, '.3f')} | {side_by_side.middle(sizes)}"
    return f"| {name} | {count} | {cells} |"


def main(requested: set[str]) -> None:
    if "errors" in requested:
        lines = ["| data | mislabelled | suspects | precision | recall |", "|---|---|---|---|---|"]
        lines += [errors(name) for name in ("hymenoptera", "sign_digits")]
        side_by_side.write("Mislabelled images", "\n".join(lines))
    if "unknown" in requested:
        head = "| trained on, other | strangeness | confidence | distance | flagged as unknown |"
        lines = ["Area under the ROC curve, and false positives at 95 %.", "", head]
        lines += ["|---|---|---|---|---|", *(unknown(*pair) for pair in PAIRS)]
        side_by_side.write("Unknown images", "\n".join(lines))
    if "sets" in requested:
        lines = ["| data | calibration images | coverage, target 0.9 | labels per image |"]
        lines += ["|---|---|---|---|", *(sets(name) for name in ("hymenoptera", "sign_digits"))]
        lines.append(sets("cifar10_small"))
        side_by_side.write("Sets of labels", "\n".join(lines))


if __name__ == "__main__":
    main(set(sys.argv[1:]) or {"errors", "unknown", "sets"})
