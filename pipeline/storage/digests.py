"""Digests of files, of folders as DVC computes them, and of the code itself."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from tqdm import tqdm

from pipeline.storage.outputs import replacing_file

_PACKAGE = Path(__file__).parents[1]
_PART = 1 << 22


def parts(path: Path, doing: str) -> Iterator[bytes]:
    """Yield a file's bytes in order, a few MB at a time.

    Args:
        path: Of the file.
        doing: What the bar says is done with it, before its name.
    """
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size,
            desc=f"{doing} {path.name}",
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=None,
        ) as bar,
    ):
        while part := file.read(_PART):
            yield part
            bar.update(len(part))


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
    remembered = _remembered(memo)
    if remembered.get("seen") == seen:
        return str(remembered["md5"])
    md5 = dvc_md5(folder)
    with suppress(OSError), replacing_file(memo) as aside:  # not where nothing may be written
        aside.write_text(json.dumps({"seen": seen, "md5": md5}))
    return md5


def _remembered(memo: Path) -> dict[str, str]:
    """What a digest's memo holds; nothing if it is absent or damaged."""
    try:
        content = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "md5" in content else {}


def file_md5(path: Path) -> str:
    """Md5 of a file's bytes."""
    return _digest(path, "md5")


def file_sha256(path: Path) -> str:
    """Sha256 of a file's bytes."""
    return _digest(path, "sha256")


def _digest(path: Path, name: str) -> str:
    hashed = hashlib.new(name)
    for part in parts(path, "hashing"):
        hashed.update(part)
    return hashed.hexdigest()


@cache
def code_sha256() -> str:
    """Digest of the package's source, which also tells versions apart where there is no git."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
