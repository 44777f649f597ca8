"""The prepare stage on real files."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cluster.connection import Config as Cluster
from pipeline.data.manifest import Manifest, read_rows
from pipeline.errors import InputError
from pipeline.intake.sources import csv as csv_source
from pipeline.intake.sources import digits, folder
from pipeline.stages import prepare
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import read_records

HALF = {"train_fraction": 0.5, "val_fraction": 0.25}


def prepared(source: object, out: Path, **settings: object) -> dict[str, float]:
    out.mkdir()
    config = prepare.Config(**{"image_size": 16, **HALF, **settings})
    return prepare.run(config, 0, source, Cluster(), Folders(out))


def quarantine(out: Path) -> dict[str, str]:
    with (out / "quarantine.csv").open(newline="") as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_a_folder_becomes_a_manifest_and_pixels(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "bright" / ".hidden.png").write_bytes(b"x")
    (image_folder / "bright" / "nested").mkdir()
    (image_folder / "bright" / "0.png").rename(image_folder / "bright" / "nested" / "0.png")
    metrics = prepared(folder.Config(path=str(image_folder)), tmp_path / "out")
    data = Manifest(tmp_path / "out")
    assert data.classes == ["bright", "dark"]
    assert data.images.shape == (24, 16, 16, 3)
    assert isinstance(data.images, np.memmap)
    assert sum(metrics[f"images_{split}"] for split in ("train", "val", "test")) == 24
    bright = data.images[data.targets == 0].mean()
    assert bright > 150 > 60 > data.images[data.targets == 1].mean()
    assert {row.path for row in data.rows} >= {"bright/nested/0.png"}
    assert {(row.width, row.height) for row in data.rows} == {(30, 20)}


def test_the_same_folder_gives_the_same_bytes(image_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepared(folder.Config(path=str(image_folder)), tmp_path / name)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_bad_files_are_quarantined_and_left_where_they_are(
    image_folder: Path, tmp_path: Path
) -> None:
    good = (image_folder / "dark" / "1.png").read_bytes()
    bad = {
        "dark/text.png": b"not an image",
        "dark/cut.png": good[: len(good) // 2],
        "dark/pointer.jpg": b"version https://git-lfs.github.com/spec/v1\n",
    }
    for name, content in bad.items():
        (image_folder / name).write_bytes(content)
    # The same image under two labels: both go.
    shutil.copy(image_folder / "dark" / "2.png", image_folder / "bright" / "copy.png")
    metrics = prepared(
        folder.Config(path=str(image_folder)),
        tmp_path / "out",
        max_bad_fraction=0.2,
        train_per_class=5,
        val_per_class=2,
    )
    reasons = quarantine(tmp_path / "out")
    assert reasons.keys() == {*bad, "dark/2.png", "bright/copy.png"}
    assert reasons["dark/text.png"].startswith("not an image")
    assert reasons["dark/cut.png"].startswith("truncated")
    assert reasons["dark/pointer.jpg"].startswith("git-lfs pointer")
    assert metrics["quarantined"] == 5
    assert all((image_folder / name).exists() for name in bad)
    data = Manifest(tmp_path / "out")
    assert len(data.images) == len(data.rows) == 23
    verdicts = {row.path: row.verdict for row in read_rows(tmp_path / "out" / "manifest.csv")}
    assert verdicts["dark/text.png"] == "quarantined"
    assert verdicts["dark/1.png"] == "ok"
    # The contradiction was decoded, then dropped: the other rows still match their images.
    for place, row in enumerate(data.rows):
        assert (data.images[place].mean() > 120) == (row.label == "bright"), row.path


def test_given_splits_are_kept(image_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for split, part in (("train", range(8)), ("valid", range(8, 10)), ("test", range(10, 12))):
        for label in ("bright", "dark"):
            (root / split / label).mkdir(parents=True)
            for index in part:
                shutil.copy(image_folder / label / f"{index}.png", root / split / label)
    metrics = prepared(folder.Config(path=str(root)), tmp_path / "out")
    assert [metrics[f"images_{s}"] for s in ("train", "val", "test")] == [16, 4, 4]
    renamed = folder.Config(path=str(root), splits={"val": "dev"})
    with pytest.raises(InputError, match="values must be train, val, test or class, got val: dev"):
        prepared(renamed, tmp_path / "other")


def test_a_csv_lists_images_labels_and_splits(image_folder: Path, tmp_path: Path) -> None:
    names = [f"{label}/{n}.png" for label in ("bright", "dark") for n in range(12)]
    table = image_folder / "list.csv"
    lines = [f"{name},{name.split('/')[0]}" for name in names]
    table.write_text("path,label\n" + "\n".join([*lines, "dark/missing.png,dark"]) + "\n")
    metrics = prepared(csv_source.Config(path=str(table)), tmp_path / "out")
    assert metrics["quarantined"] == 1
    assert (
        quarantine(tmp_path / "out")["dark/missing.png"] == "unreadable: No such file or directory"
    )
    for content, message in (
        ("file,label\na,b\n", "columns path and label"),
        ("path,label\n,a\n", "line 2 needs a path"),
        (
            "path,label,split\na.png,a,later\n",
            "split must be train, val, test or empty, got 'later'",
        ),
        ("path,label\na.png,a\na.png,a\n", "line 3 lists a.png again"),
    ):
        table.write_text(content)
        with pytest.raises(InputError, match=message):
            list(csv_source.images(csv_source.Config(path=str(table))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\n0/a,v2.png,cat\n", "line 2 must have 2 cells like the header, got 3"),
        ('path,label\na.png,"ca\nt"\n', "a label must be one line of text"),
        ("chemin,étiquette\na.png,a\n", "needs the columns path and label"),
    ],
)
def test_a_csv_with_a_slip(tmp_path: Path, content: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(content)
    with pytest.raises(InputError, match=message):
        list(csv_source.images(csv_source.Config(path=str(table))))


@pytest.mark.parametrize(
    ("encoding", "setting"), [("utf-8-sig", "utf-8"), ("utf-16", "utf-8"), ("cp1252", "cp1252")]
)
def test_a_csv_in_another_encoding(
    image_folder: Path, tmp_path: Path, encoding: str, setting: str
) -> None:
    table = image_folder / "list.csv"
    table.write_text("path;label\r\ndark/0.png;château\r\n", encoding=encoding)
    if setting != "utf-8":
        with pytest.raises(InputError, match=r"line 2 is not: save it as UTF-8, or set data.enc"):
            list(csv_source.images(csv_source.Config(path=str(table))))
    config = csv_source.Config(path=str(table), encoding=setting)
    (actual,) = csv_source.images(config)
    assert actual.label == "château"
    assert actual.file == image_folder / "dark" / "0.png"


@pytest.mark.parametrize(
    ("path", "file"),
    [("dark\\0.png", "dark/0.png"), ("dark/0", "dark/0.png"), ("é.png", "e\u0301.png")],
)
def test_a_csv_from_another_system_finds_its_files(
    image_folder: Path, path: str, file: str
) -> None:
    if not (image_folder / file).exists():
        shutil.copy(image_folder / "dark" / "0.png", image_folder / file)
    table = image_folder / "list.csv"
    table.write_text(f"path,label\n{path},a\n")
    (actual,) = csv_source.images(csv_source.Config(path=str(table)))
    assert actual.file == image_folder / file


def test_no_class_is_gone_in_silence(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "parrot").mkdir()
    for place in range(2):
        (image_folder / "parrot" / f"{place}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    message = (
        r"class 'parrot' has 2 files and no usable image: the first is parrot/0.heic \(.*HEIF\)"
    )
    source = folder.Config(path=str(image_folder))
    with pytest.raises(InputError, match=message):
        prepared(source, tmp_path / "a", max_bad_fraction=0.5)
    left_out = folder.Config(path=str(image_folder), ignore=["parrot"])
    config = prepare.Config(image_size=16, **HALF)
    counts = prepare.run(config, 0, left_out, Cluster(), Folders(tmp_path / "a"))
    assert counts["classes"] == 2


def test_classes_that_differ_in_case_alone(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "dark").rename(image_folder / "Bright ")
    with pytest.raises(InputError, match=r"more than case, spaces .*, got 'Bright' and 'bright'"):
        prepared(folder.Config(path=str(image_folder)), tmp_path / "a")


def test_images_without_a_label_are_listed(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in range(20):
        shutil.copy(image_folder / "dark" / "0.png", image_folder / f"{place}.png")
    prepared(folder.Config(path=str(image_folder)), tmp_path / "out")
    message = "44 files: 24 used, 0 quarantined, 20 left out: 20 in no class folder"
    assert message in capsys.readouterr().out
    listed = {row["path"]: row["reason"] for row in read_records(tmp_path / "out/left_out.csv")}
    assert listed["0.png"] == "in no class folder"


def test_too_little_or_too_bad_data_stops(image_folder: Path, tmp_path: Path) -> None:
    source = folder.Config(path=str(image_folder))
    (image_folder / "dark" / "bad.png").write_bytes(b"bad")
    with pytest.raises(InputError, match="1 of 25 files are bad, at most 0% are tolerated"):
        prepared(source, tmp_path / "a", max_bad_fraction=0.0)
    with pytest.raises(InputError, match="1 of 25 files are bad, at most 1% are tolerated"):
        prepared(source, tmp_path / "b", max_bad_fraction=0.01)
    (image_folder / "dark" / "bad.png").unlink()
    with pytest.raises(
        InputError, match="at least 1 image in test, but class 'bright' has none of its 12"
    ):
        prepared(source, tmp_path / "c", train_per_class=11, val_per_class=1)
    shutil.rmtree(image_folder / "dark")
    with pytest.raises(InputError, match=r"2 classes with usable images, got \['bright'\]"):
        prepared(source, tmp_path / "d")
    shutil.rmtree(image_folder / "bright")
    with pytest.raises(InputError, match="no images in class folders"):
        prepared(source, tmp_path / "e")
    with pytest.raises(InputError, match=r"nowhere, which does not exist"):
        prepared(folder.Config(path="nowhere"), tmp_path / "f")


def test_the_digits_are_a_few_shot_task(tmp_path: Path) -> None:
    metrics = prepared(
        digits.Config(), tmp_path / "out", image_size=8, train_per_class=20, val_per_class=20
    )
    assert [metrics[f"images_{s}"] for s in ("train", "val", "test")] == [200, 200, 1397]
    data = Manifest(tmp_path / "out")
    assert (np.bincount(data.targets[data.indices("train")]) == 20).all()
    first = Image.fromarray(data.images[0])
    assert first.size == (8, 8)


def test_prepare_imports_no_tensorflow() -> None:
    code = (
        "import sys; from pipeline import config; from pipeline.stages import prepare; "
        "print(sorted({'tensorflow', 'keras', 'mlflow'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
