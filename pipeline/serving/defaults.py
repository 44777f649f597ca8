"""Limits of a served model, and the defaults of its `model_config`."""

from pipeline.networks.trust.judging import COVERAGE, UNKNOWN

MAX_IMAGE_MB = 25
"""Maximum size of an image file."""
MAX_ROWS = 10_000
"""Maximum number of images in a request."""
MAX_REQUEST_MB = 100
"""Maximum size of a request; the default of `serve.max_request_mb`."""
DEFAULTS: dict[str, float] = {
    "max_request_mb": MAX_REQUEST_MB,
    "unknown": UNKNOWN,
    "coverage": COVERAGE,
}
"""Named as in section `serve`."""
