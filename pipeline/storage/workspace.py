"""Where the project keeps what is neither code nor a DVC output.

DVC runs queued experiments in temporary copies of the repository: what runs
share (activations, checkpoints, the tracking database) stays in the original.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.provenance import code_sha256


def root() -> Path:
    """The repository that was cloned, also from inside a DVC experiment's copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def work(kind: str, key: Mapping[str, object]) -> Path:
    """A folder for work in progress, named after everything it depends on, the code included."""
    text = json.dumps({**key, "code": code_sha256()}, sort_keys=True, default=str)
    return root() / ".work" / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
