"""Output folders of the stages: locked, written aside, renamed last, and their DVC digest.

Knows nothing of what is in them.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path("outputs")
"""Where the stages write, one folder a stage, relative to the working folder."""


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
    aside = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def dvc_md5(path: Path) -> str:
    """The digest that dvc.lock records for a file or a folder.

    A folder's is the md5 of its sorted list of files with theirs, as JSON, and
    ends in `.dir`. Compared with a real dvc.lock in the tests.
    """
    if path.is_file():
        return file_md5(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    entries = [
        {"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()} for file in files
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def digest(folder: Path) -> str:
    """`dvc_md5` of an output folder, remembered while its files' sizes and times stay."""
    memo = folder.parent / f".{folder.name}.md5"
    states = [(str(file), file.stat()) for file in sorted(folder.rglob("*"))]
    seen = json.dumps([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    if memo.exists():
        remembered = json.loads(memo.read_text())
        if remembered["seen"] == seen:
            return str(remembered["md5"])
    md5 = dvc_md5(folder)
    memo.write_text(json.dumps({"seen": seen, "md5": md5}))
    return md5


def file_md5(path: Path) -> str:
    """Md5 of a file's bytes."""
    return _digest(path, "md5")


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes."""
    return _digest(path, "sha256")


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write JSON whose bytes depend on the value alone."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
