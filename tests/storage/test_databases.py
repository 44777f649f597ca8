"""Databases of other versions and other programs: recognised, and left unchanged."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from conftest import Run

from pipeline.storage import addresses, databases
from pipeline.storage.databases import MLFLOW, OPTUNA, Tool

pytestmark = pytest.mark.slow

OLDEST = {MLFLOW: "451aebb31d03", OPTUNA: "v0.9.0.a"}
"""The first form of each that Alembic numbers."""


def changed(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


@pytest.fixture
def made(tmp_path: Path, empty_store: Path) -> Callable[[Tool], Path]:
    def make(tool: Tool) -> Path:
        path = tmp_path / f"{tool.package}?.db"
        if tool is MLFLOW:
            path.write_bytes(empty_store.read_bytes())
        else:
            optuna.create_study(storage=addresses.of_file(path))
        return path

    return make


@pytest.mark.parametrize("tool", [MLFLOW, OPTUNA], ids=lambda tool: str(tool.name))
def test_older_newer_and_foreign_databases(made: Callable[[Tool], Path], tool: Tool) -> None:
    path = made(tool)
    address = addresses.of_file(path)
    assert databases.unfit(address, tool) == ""
    other = OPTUNA if tool is MLFLOW else MLFLOW
    assert f"it belongs to {tool.name}, and {other.name} needs its own" in (
        databases.unfit(address, other)
    )
    changed(path, f"UPDATE alembic_version SET version_num = '{OLDEST[tool]}'")
    before = path.read_bytes()
    message = databases.unfit(address, tool)
    assert f"created by an older version than {tool.name} " in message
    assert (
        f"back it up, then run {tool.upgrade.format(address=addresses.public(address))}" in message
    )
    assert path.read_bytes() == before
    changed(path, "UPDATE alembic_version SET version_num = 'fffffffffff'")
    message = databases.unfit(address, tool)
    assert f"created by a newer version than {tool.name} " in message
    assert "use the environment that created it" in message
    assert "upgrade" not in message, "which cannot help"


def test_what_is_no_database_of_theirs(tmp_path: Path) -> None:
    foreign = tmp_path / "shop.db"
    changed(foreign, "CREATE TABLE orders (id INTEGER)")
    assert "another program's tables (orders ...)" in (
        databases.unfit(addresses.of_file(foreign), MLFLOW)
    )
    text = tmp_path / "text.db"
    text.write_text("this is text" * 100)
    assert "file is not a database" in databases.unfit(addresses.of_file(text), OPTUNA)
    empty = tmp_path / "empty.db"
    empty.touch()
    assert databases.unfit(addresses.of_file(empty), MLFLOW) == ""


def test_each_command_says_so_in_one_line_and_changes_nothing(
    clone: Path, run: Run, tmp_path: Path
) -> None:
    own, foreign = clone / "mlflow.db", tmp_path / "shop.db"
    changed(own, f"UPDATE alembic_version SET version_num = '{OLDEST[MLFLOW]}'")
    changed(foreign, "CREATE TABLE orders (id INTEGER)")
    for path, words, message in (
        (own, ["compare"], "created by an older version than MLflow"),
        (own, ["promote"], "created by an older version than MLflow"),
        (own, ["train_head"], "created by an older version than MLflow"),
        (foreign, ["compare", f"tracking.uri=sqlite:///{foreign}"], "another program's tables"),
        (foreign, ["sweep", f"sweep.storage=sqlite:///{foreign}"], "another program's tables"),
        (
            own,
            ["sweep", f"sweep.storage=sqlite:///{own}"],
            "it belongs to MLflow, and Optuna needs",
        ),
    ):
        before = path.read_bytes()
        done = run(clone, sys.executable, "-m", "pipeline", *words)
        assert done.returncode == 1, words
        *_, error = done.stderr.splitlines()
        assert error.startswith("error: "), done.stderr
        assert message in error
        assert "Traceback" not in done.stderr
        assert path.read_bytes() == before, words
    assert "error" in run(clone, sys.executable, "-m", "pipeline", "doctor").stdout
