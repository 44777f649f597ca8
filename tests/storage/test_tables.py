"""Tables that spreadsheets open as text, and that are read back unchanged."""

import csv
import shlex
from pathlib import Path

import pytest
import yaml

from pipeline import config
from pipeline.data import names
from pipeline.storage import tables

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-x", "@SUM(A1)", "\tx", "'=1", "''=1"]
HARMLESS = [
    "cat",
    "'tis",
    "-1",
    "+2.5e-3",
    "-.5",
    "-inf",
    "a=b",
    "",
    "日本",
    "a,b",
    'q"uote',
    "$x$",
]


def test_no_cell_is_a_formula_and_all_are_read_as_they_were(tmp_path: Path) -> None:
    path, cells = tmp_path / "table.csv", [*FORMULAS, *HARMLESS]
    tables.write_table(path, cells, [cells, [1.5] * len(cells)])
    with path.open(newline="") as file:
        header, line, numbers = csv.reader(file)
    assert header == line == [*(f"'{item}" for item in FORMULAS), *HARMLESS]
    assert set(numbers) == {"1.5"}
    assert tables.read_table(path) == (cells, [cells, numbers])
    assert tables.read_records(path)[0] == dict(zip(cells, cells, strict=True))


@pytest.mark.parametrize(
    "name", [*FORMULAS, *HARMLESS, "C++ (50%)", "a b", "[x]", "{y: z}", "a\\b"]
)
def test_a_remedy_can_be_pasted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    (word,) = shlex.split(names.added("data.ignore", name))
    assert config.compose([word]).data.ignore == [name]
    pairs = {name: "other", "third": name}
    message = names.mapped("data.labels", pairs)
    if " in section data of params.yaml" in message:
        assert yaml.safe_load(message.partition(" in section")[0]) == {"labels": pairs}
    else:
        (word,) = shlex.split(message)
        assert config.compose([word]).data.labels == pairs
