"""The project's folder for shared state that is neither code nor a DVC output.

DVC runs queued experiments in temporary copies of the repository; activations, checkpoints and
the tracking database, which runs share, stay in the original.
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
"""Folder below which DVC makes temporary copies of a repository."""


def root() -> Path:
    """Return the original repository, also from inside a DVC experiment's copy.

    A DVC_ROOT inherited from another project's stage is ignored.
    """
    here, variable = Path.cwd().resolve(), os.environ.get("DVC_ROOT")
    if variable is None:
        return here
    origin = Path(variable).resolve()
    return origin if here.is_relative_to(origin / _COPIES) else here


@cache
def processor() -> str:
    """Describe this machine's processor: name, instruction sets, kernels."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    cpu = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    name = cpu.get("model name", platform.processor()).strip()
    sets = " ".join(sorted(cpu.get("flags", cpu.get("Features", "")).split()))
    kernels = " with oneDNN" if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1" else ""
    return f"{platform.machine()} {name} {hashlib.sha256(sets.encode()).hexdigest()[:8]}{kernels}"


def work(kind: str, key: Mapping[str, object]) -> Path:
    """Return a folder for work in progress, named after everything it depends on."""
    whole = {**key, "code": code_sha256(), "processor": processor()}
    text = json.dumps(whole, sort_keys=True, default=str)
    return root() / ".work" / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
