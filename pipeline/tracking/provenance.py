"""Provenance: lead from a run back to exactly the code, versions and data it used.

git, if available, and the files themselves -> tags and digests.
"""

import hashlib
import json
import os
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.storage.digests import code_sha256

_TRACKED = ("pipeline", "conf", "dvc.yaml", "params.yaml", "requirements.txt")


def state(essentials: dict[str, Any], data_md5: str) -> str:
    """Compute a digest of a state of the pipeline: config, code and data."""
    parts = {"config": essentials, "code": code_sha256(), "data": data_md5}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def git_tags() -> dict[str, str]:
    """Return the commit, whether code or params differ from it, and the code's digest."""
    tags = {"code.sha256": code_sha256()}
    commit = _git("rev-parse", "HEAD")
    if commit:
        dirty = bool(_git("status", "--porcelain", "--", *_TRACKED))
        tags |= {
            "git.commit": commit,
            "git.dirty": str(dirty).lower(),
            "mlflow.source.git.commit": commit,
        }
    return tags


def patch() -> str:
    """Return the difference to the commit as a patch; empty if there is none, or no git."""
    return _git("diff", "HEAD", "--", *_TRACKED)


def refusal() -> str:
    """Explain why git refuses to work in this folder, with the remedy; or empty."""
    if "dubious ownership" not in _run_git("rev-parse", "HEAD").stderr:
        return ""
    return (
        "this folder belongs to another user, so git does not work here: git config --global --add "
        f"safe.directory {shlex.quote(str(Path.cwd().resolve()))}"
    )


def versions(*packages: str) -> list[str]:
    """Pin requirements to the installed versions."""
    return [f"{package}=={metadata.version(package)}" for package in packages]


def _git(*arguments: str) -> str:
    done = _run_git(*arguments)
    return done.stdout.strip() if done.returncode == 0 else ""


def _run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", *arguments]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:  # git is not installed
        return subprocess.CompletedProcess(command, 127, "", "")
