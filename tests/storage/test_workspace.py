"""Work in progress is found again by what it depends on, and only by that."""

from pathlib import Path

import pytest

from pipeline.storage import digests, workspace
from pipeline.tracking import provenance


def test_a_folder_is_named_after_its_key_and_the_code(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = workspace.work("finetune", {"seed": 0})
    assert workspace.work("finetune", {"seed": 0}) == item
    assert workspace.work("finetune", {"seed": 1}) != item
    assert item.is_relative_to(cwd / ".work" / "finetune")
    monkeypatch.setattr(workspace, "code_sha256", lambda: "other code")
    assert workspace.work("finetune", {"seed": 0}) != item


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"seen": 1}', "\0"])
def test_a_damaged_memo_of_a_digest_is_made_anew(cwd: Path, damage: str) -> None:
    (cwd / "outputs" / "prepare").mkdir(parents=True)
    (cwd / "outputs" / "prepare" / "a.txt").write_text("a")
    folder = cwd / "outputs" / "prepare"
    right = digests.digest(folder)
    memo = cwd / "outputs" / ".prepare.md5"
    whole = memo.read_text()
    memo.write_text(damage)
    assert digests.digest(folder) == right == digests.dvc_md5(folder)
    assert memo.read_text() == whole


def test_experiments_share_the_original_projects_work(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = cwd / ".dvc" / "tmp" / "exps" / "standalone" / "a"
    copy.mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(cwd))
    assert workspace.root() == cwd
    monkeypatch.chdir(copy)
    assert workspace.root() == cwd


def test_the_root_of_another_project_counts_for_nothing(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("/somewhere/project", cwd.parent):
        monkeypatch.setenv("DVC_ROOT", str(other))
        assert workspace.root() == cwd


def test_git_is_not_needed(cwd: Path) -> None:
    assert provenance.git_tags().keys() == {"code.sha256"}
    assert provenance.patch() == ""
    assert len(digests.code_sha256()) == 64
