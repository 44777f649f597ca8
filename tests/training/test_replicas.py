"""Training on several devices: here two parts of the processor."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Run

pytestmark = pytest.mark.slow

STAGE = [sys.executable, "-m", "pipeline", "finetune", "tracking.enabled=false"]
SHARED = [*STAGE, "finetune.replicas=2", "finetune.epochs=6"]


def result(folder: Path) -> tuple[bytes, bytes]:
    out = folder / "outputs/finetune"
    return (out / "model.keras").read_bytes(), (out / "history.csv").read_bytes()


def last_loss(history: bytes) -> float:
    *_, last = csv.DictReader(history.decode().splitlines())
    return float(last["val_loss"])


def test_the_same_bytes_each_time_also_after_a_kill(clone: Path, run: Run) -> None:
    actual = []
    for words in ([*STAGE, "finetune.epochs=6"], SHARED, SHARED):
        done = run(clone, *words)
        assert done.returncode == 0, done.stderr
        assert "does not run" not in done.stdout
        actual.append(result(clone))
    alone, shared, again = actual
    assert shared == again
    assert shared != alone, "sums are divided in another way"
    assert abs(last_loss(shared[1]) - last_loss(alone[1])) < 0.01

    child = subprocess.Popen(SHARED, cwd=clone, env=dict(os.environ), stdout=subprocess.DEVNULL)
    checkpoints = clone / ".work/finetune"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*/last.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(checkpoints.glob("*/last.npz")), "killed in the middle"
    done = run(clone, *SHARED)
    assert "resuming after epoch" in done.stdout, done.stderr
    assert result(clone) == shared
