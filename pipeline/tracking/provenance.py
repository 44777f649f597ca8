"""Which code, which versions, which state: from a run back to exactly what it ran.

git, if there is one, and the files themselves -> tags and digests.
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
    """Digest of a state of the pipeline: config, code and data."""
    parts = {"config": essentials, "code": code_sha256(), "data": data_md5}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def git_tags() -> dict[str, str]:
    """Commit and whether the code or params differ from it; the code's digest in any case."""
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
    """What differs from the commit, as a patch; empty if nothing does or there is no git."""
    return _git("diff", "HEAD", "--", *_TRACKED)


def refusal() -> str:
    """Why git says nothing of this folder though it could, with the remedy; or empty."""
    if "dubious ownership" not in _run_git("rev-parse", "HEAD").stderr:
        return ""
    return (
        "this folder belongs to another user, so git names no commit: git config --global --add "
        f"safe.directory {shlex.quote(str(Path.cwd().resolve()))}"
    )


def versions(*packages: str) -> list[str]:
    """Pinned requirements: the installed versions."""
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
