"""Restore the previous champion.

python -m pipeline rollback
"""

from pipeline.release import promotion
from pipeline.sections import Promote, Tracking

SECTIONS = ("promote",)


def run(promote: Promote, tracking: Tracking) -> None:
    """Give the alias `champion` to the version that had it before."""
    promotion.rollback(promote, tracking)
