"""What a served model is told where nobody says otherwise: its `model_config`."""

from pipeline.networks.trust.judging import COVERAGE, UNKNOWN
from pipeline.serving.http_guard import LIMITS

DEFAULTS = {**LIMITS, "unknown": UNKNOWN, "coverage": COVERAGE}
"""Limits on a request, and what answers are held to; as section `serve` names them."""
