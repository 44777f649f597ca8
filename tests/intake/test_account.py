"""Files seen = used + quarantined + left out, whatever the source."""

import json
import os
import re
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED, Run
from PIL import Image

from pipeline.errors import InputError
from pipeline.intake.account import Account
from pipeline.setup import source
from pipeline.setup.source import Looked
from pipeline.storage.tables import read_records

CASES = ("field_cases", "field_cases_2", "oddities", "hymenoptera", "exif_orient")


def files_below(root: Path) -> int:
    """Count the files below a folder by their real paths."""
    return sum(len(files) for _, _, files in os.walk(root))


def check(account: Account, seen: int) -> None:
    counts = account.to_json()
    assert counts["seen"] == seen
    assert counts["used"] + counts["quarantined"] + sum(counts["left_out"].values()) == seen


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the images in ../shared, which is absent")
    folder = tmp_path_factory.mktemp("cases")
    for name in CASES:
        with tarfile.open(SHARED / "data" / f"{name}.tar") as archive:
            archive.extractall(folder, filter="data")
    return folder


def candidates(cases: Path) -> list[Path]:
    """List every folder of folders, csv file and archive of the shared inputs."""
    folders = [
        path for path in cases.rglob("*") if path.is_dir() and any(map(Path.is_dir, path.iterdir()))
    ]
    return folders + [p for p in cases.rglob("*") if p.suffix in (".csv", ".zip", ".tar", ".gz")]


def test_the_sum_holds_for_every_input_we_have(cases: Path, cwd: Path) -> None:
    checked: Counter[str] = Counter()
    for path in candidates(cases):
        try:
            looked: Looked = source.look(path, [], 0)
        except InputError:
            checked["refused"] += 1
            continue
        account, use = looked.survey.account, looked.settings["use"]
        checked[use] += 1
        counts = account.to_json()
        whole = counts["used"] + counts["quarantined"] + sum(counts["left_out"].values())
        assert counts["seen"] == whole, path
        if use == "folder" and not any(p.is_symlink() for p in path.rglob("*")):
            assert whole == files_below(Path(looked.settings["path"])), path
        elif use == "archive" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as pack:
                assert whole == sum(not name.endswith(("/", "\\")) for name in pack.namelist()), (
                    path
                )
        elif use == "archive":
            with tarfile.open(path) as pack:
                assert whole == sum(not member.isdir() for member in pack), path
    assert checked["folder"] > 5
    assert checked["refused"] > 0


def test_linked_folders_are_counted(cases: Path, cwd: Path) -> None:
    folder = cases / "field_cases_2" / "01_linked_folders"
    account = source.look(folder / "d", [], 0).survey.account
    check(account, files_below(folder))


def test_names_that_occur_twice_in_an_archive_are_both_used(cases: Path, cwd: Path) -> None:
    path = cases / "field_cases_2" / "05_zip_same_names" / "two_cameras.zip"
    with zipfile.ZipFile(path) as pack:
        listed = [name for name in pack.namelist() if not name.endswith("/")]
    assert len(set(listed)) < len(listed)
    account = source.look(path, [], 0).survey.account
    check(account, len(listed))
    assert account.used == len(listed)


def test_prepare_prints_and_keeps_the_account(project: Path, run: Run, image_folder: Path) -> None:
    (image_folder / "dark" / ".hidden.png").write_bytes(b"x")
    (image_folder / "dark" / "broken.png").write_bytes(b"x")
    (image_folder / "notes.txt").write_text("notes")
    (image_folder / "empty").mkdir()
    words = ["data.use=folder", f"data.path={image_folder}", "tracking.enabled=false"]
    words += ["data.ignore=[mouse,0.png]", "prepare.image_size=32"]
    words += ["prepare.train_per_class=null", "prepare.val_per_class=null"]
    done = run(project, sys.executable, "-m", "pipeline", "prepare", *words)
    assert done.returncode == 0, done.stderr
    line = (
        "27 files: 22 used, 1 quarantined, 4 left out: "
        "1 not an image, in no class folder (the first is notes.txt), "
        "2 ignored by data.ignore (the first is bright/0.png), "
        "1 hidden (the first is dark/.hidden.png), empty/ is an empty class folder, "
        "data.ignore=mouse matches nothing"
    )
    assert line in done.stdout
    out = project / "outputs" / "prepare"
    files = json.loads((out / "summary.json").read_text())["files"]
    assert files["seen"] == 27
    assert files["folders"] == {"empty/": "an empty class folder"}
    listed = {row["path"]: row["reason"] for row in read_records(out / "left_out.csv")}
    assert listed["notes.txt"] == "not an image, in no class folder"
    assert len(listed) == 5


@pytest.mark.parametrize(
    ("item", "other"), [("1", "1.0"), ("01", "1"), ("1e0", "1"), ("-0", "0"), ("\uff11", "1")]
)
def test_other_names_of_one_number_stop(tmp_path: Path, cwd: Path, item: str, other: str) -> None:
    for number, name in enumerate((item, other, "2")):
        (tmp_path / "pics" / name).mkdir(parents=True)
        for place in range(4):
            pixels = np.full((8, 8), 20 * number + place, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pics" / name / f"{place}.png")
    with pytest.raises(InputError, match="number format, got '"):
        source.look(tmp_path / "pics", [], 0)


def test_names_that_no_folder_can_hold_together_stop(tmp_path: Path, cwd: Path) -> None:
    path = tmp_path / "both.zip"
    with zipfile.ZipFile(path, "w") as pack:
        pack.writestr("cat/0.png", b"x")
        pack.writestr("cat/0.png/1.png", b"x")
    with pytest.raises(InputError, match="names that cannot exist together"):
        source.look(path, [], 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,cat\nb.png,dog\nc.png,cat;dog\n", "set data.label_separator=';'"),
        ("a.png,cat\nb.png,dog\nc.png,cat dog\n", "got several, 'cat dog'"),
        ("a.png,\"['cat', 'dog']\"\n", "got a list"),
        ("https://me:pw@example.org/a.png,cat\n", "download the images"),
        ("a.png,c\0t\n", "line 2 contains a null byte"),
        ("absent.png,cat\nb.png,dog\n", "none of the 1 files of class 'cat' exists"),
    ],
)
def test_lines_of_a_csv_that_cannot_be_meant(tmp_path: Path, text: str, message: str) -> None:
    for name in "abc":
        Image.fromarray(np.full((8, 8), ord(name), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("path,label\n" + text)
    with pytest.raises(InputError, match=re.escape(message)) as stopped:
        source.look(tmp_path / "list.csv", [], 0)
    assert "pw@" not in str(stopped.value)
    assert "leave the class out" not in str(stopped.value)
