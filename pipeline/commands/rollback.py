"""Restore the previous champion.

python -m pipeline rollback
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.release import promotion

if TYPE_CHECKING:
    from pipeline.config import Config

SECTIONS = ("promote",)


def run(config: Config) -> None:
    """Give the alias `champion` to the version that had it before."""
    promotion.rollback(config)
