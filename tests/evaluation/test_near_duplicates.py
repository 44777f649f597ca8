"""Near duplicates of training images in the test split: found, listed, dropped."""

import csv
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from pipeline.data.manifest import Manifest
from pipeline.evaluation import near_duplicates

pytestmark = pytest.mark.slow

STAGES = ("prepare", "extract_features", "train_head", "finetune", "evaluate")
CLOTHES = {
    "saved anew": lambda item: item,
    "half the size": lambda item: item.resize((item.width // 2, item.height // 2)),
    "cropped": lambda item: item.crop(
        (item.width // 20, item.height // 20, item.width * 19 // 20, item.height * 19 // 20)
    ),
    "mirrored": lambda item: item.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.fixture
def leaking(shared: Path, tmp_path: Path) -> Path:
    """Photographs of ants and bees whose validation split has six training images per class."""
    with tarfile.open(shared / "data" / "hymenoptera.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "hymenoptera"
    photographs = sorted((folder / "train" / "bees").glob("*.jpg"))
    for kind, (name, change) in enumerate(CLOTHES.items()):
        for path in photographs[6 * kind : 6 * kind + 6]:
            target = folder / "val" / "bees" / f"{name} {path.stem}.jpg"
            change(Image.open(path).convert("RGB")).save(target, quality=70)
    return folder


def test_they_are_found_listed_and_left_out(
    clone: Path, run: Run, shared: Path, leaking: Path
) -> None:
    (clone.parent / "shared").symlink_to(shared)
    shutil.copy(clone / "conf/experiment/hymenoptera_mobilenet_v2.yaml", clone / "params.yaml")
    words = [f"data.path={leaking}", "data.use=folder", "data.splits={val: test}"]
    words += ["tracking.enabled=false", "finetune.cut=none", "train_head.epochs=5"]
    for stage in STAGES:
        done = run(clone, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
    evaluated = clone / "outputs" / "evaluate"
    assert "24 test images are nearly the same as a training image" in done.stdout
    with (evaluated / near_duplicates.FILE).open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        kind, _, stem = Path(line["path"]).stem.rpartition(" ")
        assert kind in CLOTHES, line
        assert Path(line["duplicate_of"]).stem == stem, line
        assert line["dropped"] == "no"
    assert len(lines) == 24
    both = json.loads((evaluated / "per_class.json").read_text())
    dropped = run(
        *(
            clone,
            sys.executable,
            "-m",
            "pipeline",
            "evaluate",
            *words,
            "evaluate.near_duplicates=drop",
        )
    )
    assert "24 test images are nearly the same as a training image: dropped" in dropped.stdout
    with (evaluated / "predictions.csv").open(newline="") as file:
        assert not {line["path"] for line in csv.DictReader(file)} & {
            item["path"] for item in lines
        }
    left = json.loads((evaluated / "per_class.json").read_text())
    assert both["bees"]["support"] - left["bees"]["support"] == 24
    assert near_duplicates.dropped_paths(evaluated) == {line["path"] for line in lines}
    report = run(clone, sys.executable, "-m", "pipeline", "report", *words)
    assert report.returncode == 0, report.stderr
    assert "Near duplicates of training images" in (clone / "outputs" / "report.html").read_text()


def test_different_images_of_one_kind_are_not_taken_for_the_same(shared: Path) -> None:
    with tarfile.open(shared / "data" / "sign_digits.tar") as archive:
        files = [item for item in archive if item.isfile() and item.name.lower().endswith(".jpg")]
        chosen = [archive.extractfile(item) for item in files[::10]]
        images = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(item.read())).resize((96, 96)))
                for item in chosen
                if item
            ]
        )
    data = Manifest.__new__(Manifest)
    data.images, data.rows = images, [None] * len(images)
    # Thumbnails for features: what proposes plays no part here, for all that is alike is near.
    features = images[:, ::8, ::8].reshape(len(images), -1).astype(np.float32)
    rows = np.arange(0, len(images), 2)
    assert near_duplicates.find(data, features, rows) == []
