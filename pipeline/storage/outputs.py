"""Output folders: locked, written aside, renamed last. Knows nothing of what is in them."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path("outputs")
"""Where the stages write, one folder a stage, relative to the working folder."""

STAGES = ("prepare", "extract_features", "train_head", "finetune", "evaluate")
"""The stages in the order of the DAG; each one's output folder has its name."""

PARAMS = Path("params.yaml")
"""The experiment, read from the working folder."""


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes.

    Attributes:
        out: Its own output; exists and is empty.
        prepare: Output of that stage; so are the following.
    """

    out: Path
    prepare: Path = ROOT / "prepare"
    extract_features: Path = ROOT / "extract_features"
    train_head: Path = ROOT / "train_head"
    finetune: Path = ROOT / "finetune"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output folder; wait for whoever holds it.

    A stage outlives a killed `dvc repro`; the next one must not write beside it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.parent / f".{out.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{out} is being written by another process: waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` if the block succeeds.

    The old `out` stays until then, and for good if the block raises.
    """
    aside = out.parent / f".{out.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        retired = out.parent / f".{out.name}.old"
        shutil.rmtree(retired, ignore_errors=True)
        if out.exists():
            out.rename(retired)
        aside.rename(out)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield a path of the same suffix that becomes `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
