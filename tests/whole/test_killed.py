"""A pipeline killed during training ends with the bytes of an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run, copied, run_in

from pipeline.storage.digests import digest
from pipeline.storage.outputs import ROOT, STAGES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("killed")]


def changed(repository: Path, folder: Path) -> Path:
    """A copy in which the trainings must run again."""
    copied(repository, folder)
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("learning_rate: ", "learning_rate: 1.1e-3  # "))
    return folder


@pytest.fixture(scope="module")
def uninterrupted(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = changed(repository, tmp_path_factory.mktemp("uninterrupted") / "project")
    assert run_in(folder, "dvc", "repro").returncode == 0
    return folder


@pytest.mark.parametrize("stage", ["train_head", "finetune"])
def test_a_killed_repro_ends_with_the_same_bytes(
    repository: Path, uninterrupted: Path, run: Run, tmp_path: Path, stage: str
) -> None:
    folder = changed(repository, tmp_path / "killed")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    child = subprocess.Popen(
        ["dvc", "repro"],
        cwd=folder,
        env={**os.environ, "PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    checkpoints: list[Path] = []
    while not checkpoints and time.monotonic() < deadline:
        time.sleep(0.01)
        checkpoints = list((folder / ".work" / stage).glob("*/last.npz"))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert checkpoints, f"killed in the middle of {stage}"

    done = run(folder, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Running stage '{stage}'" in done.stdout
    assert "resuming after epoch" in done.stdout
    assert (folder / "dvc.lock").read_bytes() == (uninterrupted / "dvc.lock").read_bytes()
    for name in STAGES:
        assert digest(folder / ROOT / name) == digest(uninterrupted / ROOT / name), name
    assert not list((folder / ".work" / stage).glob("*/last.npz"))
