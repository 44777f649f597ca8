"""Every stage and command has a help, made from its docstring and its settings."""

import re
from pathlib import Path

import pytest

from pipeline import runner

PROJECT = Path(__file__).parents[1]
NAMES = re.findall(r"^  (\w+) +\S", runner.usage(), re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        runner.run(name, ["--help"])
    usage_text = capsys.readouterr().out
    assert ended.value.code in (0, None)
    summary = next(line for line in runner.usage().splitlines() if line.startswith(f"  {name} "))
    assert summary.split(maxsplit=1)[1] in usage_text
    assert f"python -m pipeline {name}" in usage_text.partition("\n")[2], "an example"
    for line in re.findall(r"^  ([a-z_]+\.[\w.]+=\S*.*)", usage_text, re.MULTILINE):
        assert re.search(r" {2,}[A-Za-z.]|=.{30,}$", line), f"{line} has no description"


def test_all_are_there() -> None:
    files = (PROJECT / "pipeline").glob("[cs]*/[a-z]*.py")
    rooms = ("commands", "stages")
    runnable = [f.stem for f in files if f.parent.name in rooms and "\ndef run(" in f.read_text()]
    assert sorted(NAMES) == sorted(runnable)
