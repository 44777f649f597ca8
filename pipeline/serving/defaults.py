"""What a served model is held to: fixed limits, and its `model_config` where nobody sets it."""

from pipeline.networks.trust.judging import COVERAGE, UNKNOWN

MAX_IMAGE_MB = 25
"""Maximum size of an image file."""
MAX_ROWS = 10_000
"""Maximum number of images in a request."""
MAX_REQUEST_MB = 100
"""Maximum size of a request, unless `serve.max_request_mb` says otherwise."""
DEFAULTS: dict[str, float] = {
    "max_request_mb": MAX_REQUEST_MB,
    "unknown": UNKNOWN,
    "coverage": COVERAGE,
}
"""As section `serve` names them."""
