"""Output folders: locked, written aside, renamed last. Independent of their content."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

ROOT = Path("outputs")
"""Output folder of the stages, relative to the working folder."""

STAGES = ("prepare", "extract_features", "train_head", "finetune", "evaluate")
"""The stages in the order of the DAG; each names its output folder."""

PARAMS = Path("params.yaml")
"""The experiment's settings, in the working folder."""


@dataclass(frozen=True)
class Folders:
    """Folders that a stage reads and writes.

    Attributes:
        out: Its own output; exists and is empty.
        prepare: Output of that stage; likewise the others.
    """

    out: Path
    prepare: Path = ROOT / "prepare"
    extract_features: Path = ROOT / "extract_features"
    train_head: Path = ROOT / "train_head"
    finetune: Path = ROOT / "finetune"


@contextmanager
def waiting(path: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, waiting for its present holder, which `busy` describes."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{busy}: waiting", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def locked(out: Path) -> AbstractContextManager[None]:
    """Hold the lock of an output folder.

    A stage outlives a killed `dvc repro`; the next one must not write at the same time.
    """
    return waiting(out.parent / f".{out.name}.lock", f"{out} is being written by another process")


def made(folder: Path, write: Callable[[Path], object]) -> Path:
    """Return a folder, which `write` fills if it does not exist."""
    with locked(folder):
        if not folder.exists():
            with replacing(folder) as aside:
                write(aside)
    return folder


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` if the block succeeds.

    The old `out` stays until then, and is kept if the block raises.
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


def write_page(path: Path, template: Path, **values: Any) -> None:
    """Render a Jinja template as an HTML page, and replace the page at the end."""
    import jinja2

    pages = jinja2.Environment(loader=jinja2.FileSystemLoader(template.parent), autoescape=True)
    text = pages.get_template(template.name).render(**values)
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


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
