"""One room knows which task it is; everything else works with any."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.data import tasks
from pipeline.data.tasks import multilabel, regression
from pipeline.errors import InputError

PACKAGE = Path(tasks.__file__).parents[2]


def constants(node: ast.AST) -> Iterator[ast.Constant]:
    return (item for item in ast.walk(node) if isinstance(item, ast.Constant))


def test_no_code_outside_asks_which_task_it_is() -> None:
    names = set(tasks.every())
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text())) if path.parent.name != "tasks" else ()
        for node in nodes:
            asked: list[ast.AST | None] = []
            match node:
                case ast.Compare():
                    asked = [node.left, *node.comparators]
                case ast.Dict():
                    asked = list(node.keys)
                case ast.MatchValue():
                    asked = [node.value]
            texts = {inner.value for item in asked if item for inner in constants(item)}
            assert not texts & names, f"{path}: {ast.unparse(node)}"
    for path in PACKAGE.rglob("*.html"):
        assert not any(name in path.read_text() for name in names), path


def test_tasks_are_found_by_name() -> None:
    assert tasks.every() == ["classification", "multilabel", "regression"]
    with pytest.raises(InputError, match="one of classification, multilabel, regression, got 'x'"):
        tasks.named("x")
    assert tasks.recorded(tasks.named("classification")) == {}


def test_every_rarest_label_is_a_stratum() -> None:
    labels = ["a|b"] * 6 + ["a"] * 10 + ["b|c"] * 2 + [""] * 3
    assert multilabel.TASK.strata(labels) == ["b"] * 6 + ["a"] * 10 + ["c"] * 2 + ["no label"] * 3


def test_numbers_are_divided_by_quantile() -> None:
    strata = regression.TASK.strata([str(n) for n in range(100)])
    assert sorted(strata.count(name) for name in set(strata)) == [10] * 10
    assert len(set(regression.TASK.strata(["1", "2", "3"]))) == 1


def test_labels_are_sorted_and_each_is_named_once() -> None:
    assert multilabel.TASK.label(["b", "a", "b"]) == "a|b"
    with pytest.raises(ValueError, match="must not contain '\\|'"):
        multilabel.TASK.label(["a|b"])
    for text in ("x", "nan", "inf", "-inf", "1e39"):
        with pytest.raises(ValueError, match="finite numbers"):
            regression.TASK.label([text])


def test_numbers_that_are_equal_are_written_the_same() -> None:
    for texts, expected in ((("7", "7.0", "7.00"), "7"), (("0", "-0", "-0.0"), "0")):
        assert {regression.TASK.label([text]) for text in texts} == {expected}


def test_numbers_that_float32_cannot_tell_apart() -> None:
    days = [str(20_240_101 + day) for day in range(30)]
    with pytest.raises(InputError, match="from 20240101 to 20240130: subtract 20240101 from each"):
        regression.TASK.check({"train": days, "val": days, "test": days})
    fewer = [str(day) for day in range(30)]
    regression.TASK.check({"train": fewer, "val": fewer, "test": fewer})
    degrees = [f"{52.52 + 0.001 * place:.3f}" for place in range(10)]
    regression.TASK.check({"train": degrees, "val": degrees, "test": degrees})
    years = [str(1950 + year) for year in range(70)]
    regression.TASK.check({"train": years, "val": years, "test": years})
