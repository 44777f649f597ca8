"""What a folder means: classes or splits, and what stops because it could mean both."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.intake import sources
from pipeline.intake.sources import folder

Found = dict[tuple[str, str | None], int]


def put(root: Path, *folders: str, count: int = 3) -> Path:
    """Pictures in each folder, no two alike."""
    for number, name in enumerate(folders):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            pixels = np.full((4, 4), 7 * number + place, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{place}.png")
    return root


def found(root: Path, **settings: object) -> Found:
    """(label, split) -> pictures."""
    config = folder.Config(use="folder", path=str(root), **settings)
    return dict(Counter((one.label, one.split) for one in sources.pictures(config)))


CLASSES = ("cat", "dog")
SPLIT = {("cat", "train"): 3, ("dog", "train"): 3, ("cat", "val"): 3, ("dog", "val"): 3}


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "valid"), ("training_set", "validation_set"), ("Train", "dev"), ("trainset", "val")],
)
def test_splits_go_by_many_names(tmp_path: Path, train: str, val: str) -> None:
    put(tmp_path, *(f"{split}/{name}" for split in (train, val) for name in CLASSES))
    assert found(tmp_path) == SPLIT


def test_folders_without_pictures_beside_splits_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, *(f"{split}/{name}" for split in ("train", "valid") for name in CLASSES))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stage-1.pth").write_bytes(b"weights")
    assert found(tmp_path) == SPLIT


def test_folders_with_pictures_beside_splits_stop(tmp_path: Path) -> None:
    put(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "extra/cat", "extra/dog")
    with pytest.raises(InputError, match=r"beside them extra/ with 6 pictures, which is no split"):
        found(tmp_path)
    assert found(tmp_path, ignore=["extra"]) == SPLIT
    whole = found(tmp_path, splits={"extra": "test"})
    assert whole == SPLIT | {("cat", "test"): 3, ("dog", "test"): 3}


def test_a_copy_inside_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{where}{s}/{c}" for where in ("", "data/") for s in ("train", "val") for c in CLASSES),
    )
    with pytest.raises(
        InputError, match=r"data/ with 12 pictures, which holds the same splits again"
    ):
        found(tmp_path)
    assert found(tmp_path, ignore=["data"]) == SPLIT


def test_classes_that_hold_the_same_sub_folders_are_splits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{year}/{name}" for year in ("2023", "2024") for name in CLASSES))
    with pytest.raises(InputError, match=r"2023/, 2024/ in .* all hold cat, dog"):
        found(tmp_path)
    assert found(tmp_path, splits={"2023": "train", "2024": "val"}) == SPLIT


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "bus", "car", "train")
    assert found(tmp_path) == {("bus", None): 3, ("car", None): 3, ("train", None): 3}


def test_pictures_of_a_class_may_lie_deeper(tmp_path: Path) -> None:
    put(tmp_path, "cat/indoors/2023", "cat/outdoors", "dog")
    assert found(tmp_path) == {("cat", None): 6, ("dog", None): 3}


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN"])
def test_what_systems_leave_behind_is_nothing(tmp_path: Path, name: str) -> None:
    put(tmp_path, *CLASSES, name, f"cat/{name}/0.png")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"x")
    assert found(tmp_path) == {("cat", None): 3, ("dog", None): 3}


def test_pictures_without_a_class_folder_have_no_label(tmp_path: Path) -> None:
    put(tmp_path, "train/cat", "train/dog", "test")
    (tmp_path / "train" / "notes.txt").write_text("not a picture: nobody misses it")
    assert found(tmp_path) == {("cat", "train"): 3, ("dog", "train"): 3, ("", None): 3}


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert found(tmp_path)["cat", None] == 4


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "pâté") for form in ("NFC", "NFD"))
    put(tmp_path, f"train/{one}", "train/tea", f"test/{other}", "test/tea")
    assert found(tmp_path)["pâté", "train"] == found(tmp_path)["pâté", "test"] == 3


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    config = folder.Config(use="folder", path=str(tmp_path))
    (odd,) = [one for one in sources.pictures(config) if "caf" in one.path]
    assert odd.path == "cat/caf\\xe9.png"
    assert odd.read().startswith(b"\x89PNG")


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    put(tmp_path, "cat", "dog", "\x1b[31mred")
    assert ("\\x1b[31mred", None) in found(tmp_path)


def test_labels_are_renamed_and_left_out(tmp_path: Path) -> None:
    put(tmp_path, "Cat", "cat", "dog", "mouse")
    assert found(tmp_path, labels={"Cat": "cat"}, ignore=["mouse", "dog/0*"]) == {
        ("cat", None): 6,
        ("dog", None): 2,
    }


def test_a_folder_around_it_all_is_no_class(tmp_path: Path) -> None:
    wrapped = put(tmp_path / "data" / "animals", *CLASSES)
    assert found(tmp_path / "data") == found(wrapped) == {(name, None): 3 for name in CLASSES}
    (tmp_path / "data" / "__MACOSX").mkdir()
    assert found(tmp_path / "data") == found(wrapped)
    put(tmp_path / "data", ".", count=2)  # what lies beside it must not be lost
    assert found(tmp_path / "data") == {("", None): 2, ("animals", None): 6}


def test_a_copy_inside_is_named_also_where_a_folder_is_around_it(tmp_path: Path) -> None:
    names = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    put(tmp_path / "data" / "xray", *names, *(f"xray/{name}" for name in names))
    with pytest.raises(InputError, match="xray/ with 12 pictures, which holds the same splits"):
        found(tmp_path / "data")
