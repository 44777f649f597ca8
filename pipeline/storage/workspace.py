"""Where the project keeps what is neither code nor a DVC output.

DVC runs queued experiments in temporary copies of the repository: what runs
share (activations, checkpoints, the tracking database) stays in the original.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pipeline.storage.digests import code_sha256

_COPIES = Path(".dvc", "tmp")
"""Where DVC makes temporary copies of a repository, below it."""


def root() -> Path:
    """The repository that was cloned, also from inside a DVC experiment's copy of it.

    A DVC_ROOT that was inherited from another project's stage counts for nothing.
    """
    here, given = Path.cwd().resolve(), os.environ.get("DVC_ROOT")
    if given is None:
        return here
    origin = Path(given).resolve()
    return origin if here.is_relative_to(origin / _COPIES) else here


@cache
def processor() -> str:
    """The kind of this machine's processor: name, instruction sets and whose kernels run on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    known = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    name = known.get("model name", platform.processor()).strip()
    sets = " ".join(sorted(known.get("flags", known.get("Features", "")).split()))
    kernels = " with oneDNN" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1" else ""
    return f"{platform.machine()} {name} {hashlib.sha256(sets.encode()).hexdigest()[:8]}{kernels}"


def work(kind: str, key: Mapping[str, object]) -> Path:
    """A folder for work in progress, named after all it depends on, code and processor too."""
    whole = {**key, "code": code_sha256(), "processor": processor()}
    text = json.dumps(whole, sort_keys=True, default=str)
    return root() / ".work" / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
