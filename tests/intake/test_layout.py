"""Meaning of a folder: classes or splits; it stops if it could be both."""

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
    """Write different images to each folder."""
    for number, name in enumerate(folders):
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            pixels = np.full((4, 4), 7 * number + place, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{place}.png")
    return root


def actual(root: Path, **settings: object) -> Found:
    """(label, split) -> images."""
    config = folder.Config(use="folder", path=str(root), **settings)
    return dict(Counter((item.label, item.split) for item in sources.images(config)))


CLASSES = ("cat", "dog")
SPLIT = {("cat", "train"): 3, ("dog", "train"): 3, ("cat", "val"): 3, ("dog", "val"): 3}


@pytest.mark.parametrize(
    ("train", "val"),
    [("train", "valid"), ("training_set", "validation_set"), ("Train", "dev"), ("trainset", "val")],
)
def test_splits_go_by_many_names(tmp_path: Path, train: str, val: str) -> None:
    put(tmp_path, *(f"{split}/{name}" for split in (train, val) for name in CLASSES))
    assert actual(tmp_path) == SPLIT


def test_folders_without_images_beside_splits_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path, *(f"{split}/{name}" for split in ("train", "valid") for name in CLASSES))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "stage-1.pth").write_bytes(b"weights")
    assert actual(tmp_path) == SPLIT


def test_folders_with_images_beside_splits_stop(tmp_path: Path) -> None:
    put(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "extra/cat", "extra/dog")
    with pytest.raises(InputError, match=r"extra/ with 6 images, which is not a split"):
        actual(tmp_path)
    assert actual(tmp_path, ignore=["extra"]) == SPLIT
    whole = actual(tmp_path, splits={"extra": "test"})
    assert whole == SPLIT | {("cat", "test"): 3, ("dog", "test"): 3}


def test_a_copy_inside_is_named(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{where}{s}/{c}" for where in ("", "data/") for s in ("train", "val") for c in CLASSES),
    )
    with pytest.raises(InputError, match=r"data/ with 12 images, with the same splits again"):
        actual(tmp_path)
    assert actual(tmp_path, ignore=["data"]) == SPLIT


def test_classes_that_hold_the_same_sub_folders_are_splits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{year}/{name}" for year in ("2023", "2024") for name in CLASSES))
    with pytest.raises(InputError, match=r"2023/, 2024/ in .* all contain cat, dog"):
        actual(tmp_path)
    assert actual(tmp_path, splits={"2023": "train", "2024": "val"}) == SPLIT


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path, "bus", "car", "train")
    assert actual(tmp_path) == {("bus", None): 3, ("car", None): 3, ("train", None): 3}


def test_images_of_a_class_may_lie_deeper(tmp_path: Path) -> None:
    put(tmp_path, "cat/indoors/2023", "cat/outdoors", "dog")
    assert actual(tmp_path) == {("cat", None): 6, ("dog", None): 3}


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN"])
def test_what_systems_leave_behind_is_nothing(tmp_path: Path, name: str) -> None:
    put(tmp_path, *CLASSES, name, f"cat/{name}/0.png")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"x")
    assert actual(tmp_path) == {("cat", None): 3, ("dog", None): 3}


def left_out(root: Path, **settings: object) -> dict[str, str]:
    """Path -> why it is left out."""
    config = folder.Config(use="folder", path=str(root), **settings)
    others: list[sources.Sample] = []
    for _ in sources.images(config, left_out=others):
        pass
    return {other.path: other.left_out for other in others}


def test_images_in_no_class_folder_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "train/cat", "train/dog", "test")
    (tmp_path / "train" / "notes.txt").write_text("notes")
    assert actual(tmp_path) == {("cat", "train"): 3, ("dog", "train"): 3}
    loose = {f"test/{place}.png": "in no class folder" for place in range(3)}
    assert left_out(tmp_path) == loose | {"train/notes.txt": "not an image, in no class folder"}


def test_linked_folders_are_read_and_cycles_end(tmp_path: Path) -> None:
    put(tmp_path / "data", *CLASSES)
    put(tmp_path / "disk", "2023", "2024/deeper", count=5)
    for year in ("2023", "2024"):
        (tmp_path / "data" / "cat" / year).symlink_to(tmp_path / "disk" / year)
    (tmp_path / "disk" / "2024" / "deeper" / "up").symlink_to(tmp_path / "disk" / "2024")
    (tmp_path / "data" / "dog" / "loop").symlink_to("..")
    (tmp_path / "data" / "owl").symlink_to(tmp_path / "disk" / "2023")
    assert actual(tmp_path / "data") == {("cat", None): 13, ("dog", None): 3, ("owl", None): 5}
    assert set(left_out(tmp_path / "data")) == {"cat/2024/deeper/up/", "dog/loop/"}


def test_a_class_that_is_a_link_to_what_it_lies_in_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "data", *CLASSES)
    (tmp_path / "data" / "up").symlink_to(tmp_path)
    (tmp_path / "data" / "self").symlink_to(".")
    assert actual(tmp_path / "data") == {("cat", None): 3, ("dog", None): 3}
    assert set(left_out(tmp_path / "data")) == {"up/", "self/"}


def test_an_empty_class_and_a_hidden_one_are_named(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES, ".fox")
    (tmp_path / "owl").mkdir()
    found_out = left_out(tmp_path)
    assert found_out.pop("owl/") == "an empty class folder"
    assert found_out == {f".fox/{place}.png": "hidden" for place in range(3)}


def test_a_pattern_that_matches_nothing_is_told(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES, "mouse")
    ignore = ["mouse", "dog/0.png", "*.jpg", "cow", "dog/[12].png"]
    config = folder.Config(use="folder", path=str(tmp_path), ignore=ignore)
    others: list[sources.Sample] = []
    assert len(list(sources.images(config, left_out=others))) == 3
    assert sources.unmatched(ignore, others) == ["*.jpg", "cow"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("data/data/train", "data/data/test"),
        ("x/y/z/train/inner/images", "x/y/z/test/images"),
        ("my-train", "my-test"),
        ("train_v2", "test_v2"),
        ("a/birds.train/b", "a/birds.test/b"),
    ],
)
def test_folders_around_at_any_depth(tmp_path: Path, train: str, test: str) -> None:
    put(tmp_path, *(f"{split}/{name}" for split in (train, test) for name in CLASSES))
    (tmp_path / "README.txt").write_text("about")
    assert actual(tmp_path) == {(name, split): 3 for name in CLASSES for split in ("train", "test")}
    assert len(left_out(tmp_path)) == 1


def test_unlabelled_images_beside_such_splits_stop(tmp_path: Path) -> None:
    splits = [f"seg_{s}/seg_{s}/{c}" for s in ("train", "test") for c in CLASSES]
    put(tmp_path, *splits, "seg_pred/seg_pred")
    with pytest.raises(InputError, match="next to them seg_pred/ with 3 images"):
        actual(tmp_path)
    assert sum(actual(tmp_path, ignore=["seg_pred"]).values()) == 12


def test_a_class_called_train_with_folders_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, *(f"{name}/{place}" for name in ("bus", "train") for place in ("day", "night")))
    with pytest.raises(InputError, match=r"if all are classes, set 'data.splits={train: class}'"):
        actual(tmp_path)
    assert actual(tmp_path, splits={"train": "class"}) == {("bus", None): 6, ("train", None): 6}


def test_train_and_test_without_class_folders_stop(tmp_path: Path) -> None:
    put(tmp_path, "train", "test")
    with pytest.raises(InputError, match=r"have no class folders: .*test: class, train: class"):
        actual(tmp_path)
    classes = {"train": "class", "test": "class"}
    assert actual(tmp_path, splits=classes) == {("test", None): 3, ("train", None): 3}


def test_a_folder_that_may_not_be_read_is_no_empty_one(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES, "cat/private")
    (tmp_path / "cat" / "private").chmod(0)
    try:
        if os.access(tmp_path / "cat" / "private", os.R_OK):
            pytest.skip("this user may read everything")
        with pytest.raises(PermissionError):
            actual(tmp_path)
    finally:
        (tmp_path / "cat" / "private").chmod(0o755)


def test_links_to_nothing_are_listed(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES)
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert actual(tmp_path)["cat", None] == 4


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    item, other = (unicodedata.normalize(form, "pâté") for form in ("NFC", "NFD"))
    put(tmp_path, f"train/{item}", "train/tea", f"test/{other}", "test/tea")
    assert actual(tmp_path)["pâté", "train"] == actual(tmp_path)["pâté", "test"] == 3


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    put(tmp_path, *CLASSES)
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / os.fsdecode(b"caf\xe9.png"))
    config = folder.Config(use="folder", path=str(tmp_path))
    (odd,) = [item for item in sources.images(config) if "caf" in item.path]
    assert odd.path == "cat/caf\\xe9.png"
    assert odd.read().startswith(b"\x89PNG")


def test_names_that_a_terminal_would_obey(tmp_path: Path) -> None:
    put(tmp_path, "cat", "dog", "\x1b[31mred")
    assert ("\\x1b[31mred", None) in actual(tmp_path)


def test_labels_are_renamed_and_left_out(tmp_path: Path) -> None:
    put(tmp_path, "Cat", "cat", "dog", "mouse")
    assert actual(tmp_path, labels={"Cat": "cat"}, ignore=["mouse", "dog/0*"]) == {
        ("cat", None): 6,
        ("dog", None): 2,
    }


def test_a_folder_around_it_all_is_no_class(tmp_path: Path) -> None:
    wrapped = put(tmp_path / "data" / "animals", *CLASSES)
    assert actual(tmp_path / "data") == actual(wrapped) == {(name, None): 3 for name in CLASSES}
    (tmp_path / "data" / "__MACOSX").mkdir()
    assert actual(tmp_path / "data") == actual(wrapped)
    put(tmp_path / "data", ".", count=2)  # what lies beside it must not be lost
    assert actual(tmp_path / "data") == {("animals", None): 6}
    assert set(left_out(tmp_path / "data")) == {"0.png", "1.png"}


def test_a_copy_inside_is_named_also_where_a_folder_is_around_it(tmp_path: Path) -> None:
    names = [f"{split}/{name}" for split in ("train", "test") for name in CLASSES]
    put(tmp_path / "data" / "xray", *names, *(f"xray/{name}" for name in names))
    with pytest.raises(InputError, match="xray/ with 12 images, with the same splits"):
        actual(tmp_path / "data")
