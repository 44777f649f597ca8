"""What a csv file says of labels and numbers, and what it must not say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.intake import sources
from pipeline.intake.sources.csv import Config
from pipeline.intake.sources.folder import Config as Folder
from pipeline.setup import source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in range(40):
        Image.fromarray(np.full((8, 8), 6 * name, np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def written(folder: Path, header: str, cells: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("\n".join([f"path,{header}", *(f"{n}.png,{c}" for n, c in enumerate(cells))]))
    return path


@pytest.mark.parametrize(
    ("header", "cells", "settings", "task", "first"),
    [
        ("label", ["b|a", "a", "b"], {}, "multilabel", "a|b"),
        ("label", ["1", "2", "1"], {}, "classification", "1"),
        ("label", ["b;a", "a", "b"], {"label_separator": ";"}, "multilabel", "a|b"),
        ("label", ["b|a", "a", "b"], {"task": "classification"}, "classification", "b|a"),
        ("a,b", ["1,1", "0,1", "0,0"], {"label_columns": ["a", "b"]}, "multilabel", "a|b"),
        ("price", ["12.50", "3", "-1e3"], {"target": "price"}, "regression", "12.5"),
        ("label", ["3", "4", "5"], {"task": "regression"}, "regression", "3"),
        ("a", ["yes", "no", "no"], {"label_columns": ["a"]}, "multilabel", "a"),
        (" a , b", ["1,1", "0,1", "0,0"], {"label_columns": ["a", "b"]}, "multilabel", "a|b"),
        ("price", ["7.0", "7", "7.00"], {"target": "price"}, "regression", "7"),
    ],
)
def test_the_task_follows_from_the_data(
    folder: Path, header: str, cells: list[str], settings: dict, task: str, first: str
) -> None:
    config = Config(path=str(written(folder, header, cells)), **settings)
    assert sources.task(config).value == task
    images = list(sources.images(config))
    assert len(images) == 3
    assert images[0].label == first


def test_images_without_a_target_are_left_out_with_the_reason(folder: Path) -> None:
    config = Config(path=str(written(folder, "price", ["1", "", "3"])), target="price")
    left_out: list[sources.Sample] = []
    assert len(list(sources.images(config, left_out=left_out))) == 2
    assert [(item.path, item.left_out) for item in left_out] == [("1.png", "without price")]


@pytest.mark.parametrize(
    ("cells", "labels", "expected"),
    [
        (["cat", "dog"], {"cat": "dog", "dog": "cat"}, ["dog", "cat"]),
        (["cat", "dog"], {"cat": "dog", "dog": "wolf", "wolf": "fox"}, ["dog", "wolf"]),
        (["cat", "cat|bird"], {"cat": "dog", "dog": "wolf"}, ["dog", "bird|dog"]),
        (["cat|bird", "a|cat"], {"cat|bird": "pair"}, ["pair", "a|cat"]),
    ],
)
def test_labels_are_renamed_once(
    folder: Path, cells: list[str], labels: dict[str, str], expected: list[str]
) -> None:
    config = Config(path=str(written(folder, "label", cells)), labels=labels)
    assert [image.label for image in sources.images(config)] == expected


@pytest.mark.parametrize(
    ("header", "cells", "settings", "expected", "others"),
    [
        ("label", ["cat|dog", "dog", "cat|fox"], {}, ["cat", "cat|fox"], ["1.png", "dog/"]),
        ("label", ["cat|doge", "dog", "cat|fox"], {}, ["cat|doge", "cat|fox"], ["1.png", "dog/"]),
        (
            "dog,cat",
            ["1,1", "1,0", "0,1"],
            {"label_columns": ["dog", "cat"]},
            ["cat", "", "cat"],
            ["dog/"],
        ),
        (
            "dog,cat",
            ["0,1", "1,0", "0,1"],
            {"label_columns": ["dog", "cat"], "task": "classification"},
            ["cat", "cat"],
            ["1.png"],
        ),
    ],
)
def test_an_ignored_label_is_on_no_image(
    folder: Path,
    header: str,
    cells: list[str],
    settings: dict,
    expected: list[str],
    others: list[str],
) -> None:
    config = Config(path=str(written(folder, header, cells)), ignore=["dog"], **settings)
    left_out: list[sources.Sample] = []
    assert [image.label for image in sources.images(config, left_out=left_out)] == expected
    assert sorted(item.path for item in left_out) == others
    assert not sources.unmatched(config.ignore, left_out)


@pytest.mark.parametrize(
    ("header", "cells", "settings", "pattern"),
    [
        ("price", ["-1", "-2", "3"], {"target": "price"}, "-*"),
        ("label", ["crab|dog", "crab", "dog"], {}, "c*g"),
        ("label", ["crab dog", "crab", "dog"], {"label_separator": " "}, "crab dog"),
    ],
)
def test_a_pattern_is_no_number_and_no_list_of_labels(
    folder: Path, header: str, cells: list[str], settings: dict, pattern: str
) -> None:
    config = Config(path=str(written(folder, header, cells)), ignore=[pattern], **settings)
    assert len(list(sources.images(config))) == 3


@pytest.mark.parametrize("name", ["", " ", "a\nb"])
def test_a_class_is_not_renamed_to_nothing(name: str) -> None:
    for config in (Config(path="x", labels={"cat": name}), Folder(path="x", labels={"cat": name})):
        with pytest.raises(InputError, match=r"data\.labels must rename 'cat' to a class name"):
            config.check("data")


MANY = [f"label{n}|label{n + 1}" for n in range(40)]


@pytest.mark.parametrize(
    ("header", "cells", "settings", "message"),
    [
        ("price", ["1", "cheap", "3"], {"target": "price"}, "line 3: data.target must be a column"),
        ("price", ["1", "nan", "3"], {"target": "price"}, "such as 1.5, got 'nan'"),
        ("price", ["1", "inf", "3"], {"target": "price"}, "such as 1.5, got 'inf'"),
        ("price", ["2"] * 40, {"target": "price"}, "must differ, but all are 2"),
        ("price", [""] * 40, {"target": "price"}, "40 without price"),
        ("size", ["1"] * 40, {"target": "price"}, "needs the columns path and price"),
        ("label", ["a", "b"] * 20, {"label_separator": "|"}, "'|' is in none"),
        ("label", ["a|b", "a"] * 20, {}, "'a' is on all"),
        ("label", MANY, {}, "each class needs at least 1 image in"),
        ("a,b", ["1,2"] * 40, {"label_columns": ["a", "b"]}, "columns of 0 and 1, got b=2"),
        ("a,b", ["1,0", "1,1"] * 20, {"label_columns": ["a", "b"]}, "is on all"),
        (
            "a,b",
            ["1,0", "0,0"] * 20,
            {"label_columns": ["a", "b"]},
            "no image has a 1 in column 'b'",
        ),
        ("a,b", ["0,0"] * 40, {"label_columns": ["a", "b"]}, "no image has a 1 in column 'a'"),
        ("price,price", ["1,2", "3,4"] * 20, {"target": "price"}, "several columns named 'price'"),
        ("a", ["1", "0"] * 20, {"label_columns": ["a"], "task": "regression"}, "with data.target"),
        ("label", ["a|b"] * 9 + ["a|c"], {"task": "guess"}, "data.task must be auto or one of"),
        ("label", ["a|b"] * 40, {"target": "x", "label_separator": "|"}, "set only one of"),
    ],
)
def test_what_cannot_be_learned_stops_with_one_line(
    folder: Path, header: str, cells: list[str], settings: dict, message: str
) -> None:
    with pytest.raises(InputError) as stopped:
        source.look(written(folder, header, cells), [], 0, settings)
    assert message in str(stopped.value)
    assert "\n" not in str(stopped.value)
