"""Make the current model the champion, which is served, if it passes every check.

The model is registered in the MLflow registry in any case. If a rule fails, the champion stays and
the exit code is 1.

    python -m pipeline promote --dry-run
"""

import argparse

from pipeline.config import Config
from pipeline.release import promotion


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run` and `--added`."""
    parser.add_argument(
        "--dry-run", action="store_true", help="show the decision and change nothing"
    )
    parser.add_argument("--added", action="store_true", help="promote the result of add")


def run(config: Config, options: argparse.Namespace) -> None:
    """Decide, and promote unless this is a dry run."""
    promotion.promote(config, dry_run=options.dry_run, added=options.added)
