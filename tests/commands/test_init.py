"""init: from a folder to a params.yaml that works, with a reason for each value."""

import csv
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import yaml
from conftest import Run
from mlflow import MlflowClient
from PIL import Image
from sklearn.datasets import load_digits

Init = Callable[..., CompletedProcess[str]]


def digits(folder: Path, classes: int = 4, count: int = 60) -> Path:
    """Write handwritten digits, one folder per class."""
    data = load_digits()
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for place, values in enumerate(data.images[data.target == label][:count]):
            image = Image.fromarray((255 - values * 255 / 16).astype(np.uint8))
            image.save(folder / str(label) / f"{place}.png")
    return folder


@pytest.fixture
def init(project: Path, run: Run) -> Init:
    def call(*words: object) -> CompletedProcess[str]:
        return run(project, sys.executable, "-m", "pipeline", "init", *map(str, words))

    return call


@pytest.mark.slow
def test_two_commands_and_no_edit(clone: Path, run: Run) -> None:
    images = digits(clone / "images", classes=3, count=40)
    (images / "0" / "note.txt").write_text("no image")
    (images / "1" / "again.png").write_bytes((images / "1" / "0.png").read_bytes())
    shipped = (clone / "params.yaml").read_bytes()
    done = run(clone, sys.executable, "-m", "pipeline", "init", "images", "--backbone", "glyph_cnn")
    assert done.returncode == 0, done.stderr
    for message in (
        "121 images of 3 classes",
        "  0  40",
        "splits in the source: none",
        "copies of other images: 1",
        "  0/note.txt: not an image",
        "dvc repro will take up to about",
        "test images would probably miss differences in accuracy below",
    ):
        assert message in done.stdout
    assert (clone / "params.before.yaml").read_bytes() == shipped
    text = (clone / "params.yaml").read_text()
    sections = yaml.safe_load(text)
    assert sections["data"] == {"use": "folder", "path": "images"}
    for derived in ("cut", "epochs", "learning_rate"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {derived}:")]
        assert "# " in line, "each derived value has its reason beside it"

    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((clone / "outputs/evaluate/metrics.json").read_text())
    assert metrics["fine_tuned"]["accuracy"] > 0.9
    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    newest = client.search_runs(["1"], "tags.`pipeline.state` != ''")[0]
    assert sections["finetune"]["cut"] == sections["finetune"]["epochs"] == "auto"
    derived = json.loads((clone / "outputs/finetune/derived.json").read_text())
    assert newest.data.params["finetune.cut"] == derived["finetune.cut"]["value"]
    assert "of 18 validation images" in derived["finetune.cut"]["reason"]
    assert newest.data.params["head.solver"] == "lbfgs"


@pytest.mark.slow
def test_a_params_file_of_somebodys_own_is_kept(project: Path, init: Init) -> None:
    images = digits(project / "images", classes=2, count=20)
    assert init(images, "--backbone", "glyph_cnn").returncode == 0
    mine = (project / "params.yaml").read_text() + "# mine\n"
    (project / "params.yaml").write_text(mine)
    refused = init(images, "--backbone", "glyph_cnn")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: params.yaml exists: pass --force to replace it")
    assert (project / "params.yaml").read_text() == mine
    assert init(images, "--backbone", "glyph_cnn", "--force").returncode == 0
    assert (project / "params.before2.yaml").read_text() == mine


@pytest.mark.slow
def test_a_csv_and_an_archive(project: Path, init: Init) -> None:
    images = digits(project / "images", classes=2, count=30)
    with (project / "list of images.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "writer"])
        table.writerows(
            [f"images/{p.parent.name}/{p.name}", f"no. {p.parent.name}", place % 9]
            for place, p in enumerate(sorted(images.rglob("*.png")))
        )
    done = init("list of images.csv", "--backbone", "glyph_cnn")
    assert done.returncode == 0, done.stderr
    assert "  no. 1  30" in done.stdout
    assert "column writer has 9 values: set data.group=writer if images" in done.stdout
    actual = yaml.safe_load((project / "params.yaml").read_text())
    assert actual["data"] == {"use": "csv", "path": "list of images.csv"}

    with tarfile.open(project / "images.tar", "w") as archive:
        archive.add(images, "images")
    done = init("images.tar", "--backbone", "glyph_cnn", "--force")
    assert done.returncode == 0, done.stderr
    actual = yaml.safe_load((project / "params.yaml").read_text())
    assert actual["data"]["use"] == "archive"
    assert len(actual["data"]["sha256"]) == 64


@pytest.mark.slow
def test_a_labelled_val_without_test_is_the_test_split(project: Path, init: Init) -> None:
    digits(project / "images" / "train", classes=2, count=40)
    digits(project / "images" / "val", classes=2, count=60)
    for place in range(40):  # what lies in both would stay in val alone
        for label in "01":
            (project / "images" / "val" / label / f"{place}.png").unlink()
    done = init("images", "--backbone", "glyph_cnn")
    assert done.returncode == 0, done.stderr
    assert "splits in the source: train, val" in done.stdout
    assert ", 40 test" in done.stdout
    actual = yaml.safe_load((project / "params.yaml").read_text())
    assert actual["data"]["splits"] == {"val": "test"}


@pytest.mark.slow
def test_backbones_are_tried(project: Path, init: Init) -> None:
    images = digits(project / "images", classes=3, count=40)
    done = init(images, "--try", "glyph_cnn,nowhere.keras")
    assert done.returncode == 0, done.stderr
    (tried,) = [line for line in done.stdout.splitlines() if line.startswith("glyph_cnn ")]
    assert "accuracy 0.9" in tried or "accuracy 1.0" in tried
    assert "ms/image" in tried
    assert "nowhere.keras" in done.stdout
    assert "not available" in done.stdout
    assert yaml.safe_load((project / "params.yaml").read_text())["backbone"]["use"] == "glyph_cnn"


@pytest.mark.parametrize(
    ("path", "words", "message"),
    [
        ("nowhere", (), "no such file or folder: nowhere"),
        ("README.md", (), "got README.md: name the folder with a subfolder for each class"),
        ("one", (), "at least 2 classes with usable images, got ['0']"),
        ("empty", (), "no images in class folders"),
        ("two", ("--backbone", "mobilenet"), "did you mean mobilenet_v2"),
        ("two", ("--backbone", "x.keras"), "x.keras: no such file"),
    ],
)
def test_bad_input(
    project: Path, init: Init, path: str, words: tuple[str, ...], message: str
) -> None:
    digits(project / "one", classes=1, count=3)
    digits(project / "two", classes=2, count=3)
    (project / "empty").mkdir()
    before = (project / "params.yaml").read_bytes()
    done = init(path, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.slow
def test_a_class_with_an_image_or_two_is_no_hindrance(project: Path, init: Init) -> None:
    images = digits(project / "images", classes=3, count=40)
    (images / "rare").mkdir()
    for place, image in enumerate(sorted((images / "0").glob("*.png"))[:3]):
        image.rename(images / "rare" / f"{place}.png")
    done = init(images, "--try", "glyph_cnn")
    assert done.returncode == 0, done.stderr
    assert "imbalanced: the largest class has 13.3 times" in done.stdout
