"""A pipeline that is killed in the middle of a training ends as an uninterrupted one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run

from pipeline.outputs import ROOT, digest
from pipeline.stages import STAGES


@pytest.mark.parametrize("stage", ["train_head", "finetune"])
def test_a_killed_repro_ends_with_the_same_bytes(
    clone: Path, run: Run, tmp_path: Path, stage: str
) -> None:
    other = tmp_path / "other"
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("learning_rate: ", "learning_rate: 1.1e-3  # "))
    shutil.copytree(clone, other, symlinks=True)
    assert run(clone, "dvc", "repro").returncode == 0

    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    child = subprocess.Popen(
        ["dvc", "repro"],
        cwd=other,
        env={**os.environ, "PATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    checkpoints: list[Path] = []
    while not checkpoints and time.monotonic() < deadline:
        time.sleep(0.01)
        checkpoints = list((other / ".work" / stage).glob("*/last.npz"))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert checkpoints, f"killed in the middle of {stage}"

    done = run(other, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Running stage '{stage}'" in done.stdout
    assert "goes on after epoch" in done.stdout
    assert (other / "dvc.lock").read_bytes() == (clone / "dvc.lock").read_bytes()
    for name in STAGES:
        assert digest(other / ROOT / name) == digest(clone / ROOT / name), name
    assert not list((other / ".work" / stage).glob("*/last.npz"))
