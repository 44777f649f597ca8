"""Digests of files, of folders as DVC computes them, and of the code."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from pipeline.storage import progress
from pipeline.storage.outputs import replacing_file

_PACKAGE = Path(__file__).parents[1]
_PART = 1 << 22


def parts(path: Path, doing: str) -> Iterator[bytes]:
    """Yield a file's bytes in order, a few MB at a time; `doing` is the progress bar's verb."""
    with (
        path.open("rb") as file,
        progress.bar(
            desc=f"{doing} {path.name}", total=path.stat().st_size, unit="B", unit_scale=True
        ) as bar,
    ):
        while part := file.read(_PART):
            yield part
            bar.update(len(part))


def dvc_md5(path: Path) -> str:
    """Compute the digest that dvc.lock records for a file or folder.

    A folder's digest is the MD5 of the sorted JSON list of its files and their digests, and ends in
    `.dir`. The tests compare it with a real dvc.lock.
    """
    if path.is_file():
        return file_md5(path)
    entries = [
        {"md5": file_md5(file), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file()
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def digest(folder: Path) -> str:
    """Compute `dvc_md5` of an output folder; cached until the size or time of a file changes."""
    memo = folder.parent / f".{folder.name}.md5"
    states = [(str(file), file.stat()) for file in sorted(folder.rglob("*"))]
    state_key = json.dumps([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    with suppress(OSError, ValueError, KeyError, TypeError):  # absent or damaged
        remembered = json.loads(memo.read_text())
        if remembered["seen"] == state_key:
            return str(remembered["md5"])
    md5 = dvc_md5(folder)
    with suppress(OSError), replacing_file(memo) as aside:  # read-only folders have no cache
        aside.write_text(json.dumps({"seen": state_key, "md5": md5}))
    return md5


def file_md5(path: Path) -> str:
    """Compute the MD5 of a file."""
    return _digest(path, "md5")


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    return _digest(path, "sha256")


def _digest(path: Path, name: str) -> str:
    hashed = hashlib.new(name)
    for part in parts(path, "hashing"):
        hashed.update(part)
    return hashed.hexdigest()


@cache
def code_sha256() -> str:
    """Compute a digest of the package's source, which identifies versions without git."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
