"""From a downloaded archive to results: `make repro` where there is no git."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Run

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]


def test_make_repro_in_a_folder_without_git(project: Path, run: Run, repository: Path) -> None:
    # The environment is the one that runs this test: installing it again takes minutes.
    (project / ".venv").symlink_to(sys.prefix)
    assert not (project / ".git").exists()
    done = run(project, "make", "repro", "-o", ".venv/.installed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fine_tuned   accuracy" in done.stdout
    assert (project / "dvc.lock").read_bytes() == (repository / "dvc.lock").read_bytes()
    again = run(project, "make", "repro", "-o", ".venv/.installed")
    assert "Data and pipelines are up to date" in again.stdout


def test_requirements_are_locked_and_name_no_registry() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = (PROJECT / name).read_text()
        assert not re.search(r"https?://|--index-url|--find-links", text)
        packages = re.findall(r"^[a-z0-9.-]+==", text, re.MULTILINE)
        assert len(packages) > 100
        assert text.count("--hash=sha256:") >= len(packages)


def test_python_that_is_too_old_is_told(project: Path, run: Run, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1\nexit 1\n')
    old.chmod(0o755)
    done = run(project, "make", "repro", f"PYTHON={old}")
    assert done.returncode != 0
    assert "error: Python 3.11 to 3.13 is needed, not Python 3.8.1" in done.stdout + done.stderr


def test_pre_commit_calls_what_make_lint_calls() -> None:
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (PROJECT / "Makefile").read_text()
    for hook in hooks:
        assert hook["entry"] in makefile
