"""Whether the project's files can lie on the disk once, though they are in several places."""

import subprocess
import sys
import tempfile
from pathlib import Path

from pipeline.storage import arrays

_DVC = Path(".dvc")


def shared() -> bool:
    """Whether DVC's cache and the outputs can be the same bytes on this disk.

    A clone or a hard link is tried; where `cache.type` names neither, nothing is shared.
    """
    types = cache_type()
    if not _DVC.is_dir() or not {"reflink", "hardlink"} & set(types.split(",")):
        return False
    with (
        tempfile.TemporaryDirectory(dir=_DVC) as there,
        tempfile.TemporaryDirectory(dir=".") as here,
    ):
        source, target = Path(there) / "a", Path(here) / "b"
        source.write_bytes(b"a")
        return arrays.share(source, target) != arrays.Shared.copied


def cache_type() -> str:
    """What DVC is told to do, in order of preference."""
    command = [sys.executable, "-m", "dvc", "config", "cache.type"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip().replace(" ", "") or "reflink,copy"
