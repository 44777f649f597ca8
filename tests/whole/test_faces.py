"""The example in each package's docstring, run in a finished project."""

import doctest
import importlib
from pathlib import Path

import pytest
from conftest import PROJECT

FACES = [path.parent for path in sorted((PROJECT / "pipeline").rglob("__init__.py"))]
# Their faces say how a kind is added, and sources and backbones have an example each above them.
WITHOUT = {"pipeline", "pipeline.intake.sources", "pipeline.networks.backbones"}
NAMES = {".".join(folder.relative_to(PROJECT).parts) for folder in FACES} - WITHOUT


@pytest.mark.parametrize("name", sorted(NAMES))
def test_its_example_works(name: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted, f"{name} has no example"
    assert not done.failed
