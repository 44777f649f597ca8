"""Work in progress is found again by what it depends on, and by nothing else."""

from pathlib import Path

import pytest

from pipeline.storage import digests, workspace
from pipeline.tracking import provenance


def test_a_folder_is_named_after_its_key_and_the_code(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = workspace.work("finetune", {"seed": 0})
    assert workspace.work("finetune", {"seed": 0}) == one
    assert workspace.work("finetune", {"seed": 1}) != one
    assert one.is_relative_to(cwd / ".work" / "finetune")
    monkeypatch.setattr(workspace, "code_sha256", lambda: "other code")
    assert workspace.work("finetune", {"seed": 0}) != one


def test_experiments_share_the_original_projects_work(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", "/somewhere/project")
    assert workspace.root() == Path("/somewhere/project")


def test_git_is_not_needed(cwd: Path) -> None:
    assert provenance.git_tags().keys() == {"code.sha256"}
    assert provenance.patch() == ""
    assert len(digests.code_sha256()) == 64
