"""List the stored activations, least recently used first, or remove them.

Feature extraction, fine-tuning and sweeps share them. They can always be computed again.

    python -m pipeline cache clear
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from pipeline.features.store import Store

if TYPE_CHECKING:
    from pipeline.config import Config

SECTIONS = ("activations",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the word `clear`."""
    parser.add_argument(
        "action", nargs="?", choices=["list", "clear"], default="list", help="default: list"
    )


def run(config: Config, options: argparse.Namespace) -> None:
    """List what is stored, or remove it."""
    store = Store(config.activations)
    if options.action == "clear":
        store.clear()
    entries = store.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        name = f"{entry.key['backbone']} at {entry.key['cut']}, {entry.key['image_size']} px"
        print(f"{entry.size / 1e6:10.1f} MB  {used}  {name}")
    print(f"{sum(entry.size for entry in entries) / 1e6:10.1f} MB  in {store.root}")
