"""Settings and limits of a served model, and defaults of a registered model's `model_config`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

from pipeline.networks.trust.judging import COVERAGE, UNKNOWN

MAX_IMAGE_MB = 25
"""Maximum size of an image file."""
MAX_ROWS = 10_000
"""Maximum number of images in a request."""
MAX_REQUEST_MB = 100
"""Maximum size of a request; the default of `serve.max_request_mb`."""
DEFAULTS: dict[str, float] = {"unknown": UNKNOWN, "coverage": COVERAGE}
"""Named as in section `serve`."""
METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with a folder in which several workers count together."""
FROM_SECTION = ("unknown", "coverage", "max_request_mb", "timeout_s", "token")
"""Settings of section `serve` that the workers need."""
_VARIABLE = "PIPELINE_SERVE"


@dataclass(frozen=True)
class Settings:
    """Model and settings of a worker; the last five are those of section `serve`.

    Attributes:
        model: The .keras file.
        trusted: True if code in the file may run.
        about: Facts that /version lists: the model's name, commit, data.
        prepared: Output of prepare, for the page's examples.
    """

    model: str
    trusted: bool
    about: dict[str, str]
    prepared: str
    unknown: float
    coverage: float
    max_request_mb: int
    timeout_s: int
    token: str | None

    def store(self) -> None:
        """Put them into the environment, for this process and its workers."""
        os.environ[_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def stored(cls) -> Settings:
        """Return those in the environment."""
        return cls(**json.loads(os.environ[_VARIABLE]))
