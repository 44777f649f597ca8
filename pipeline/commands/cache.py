"""List or remove cached activations, the outputs of frozen layers.

Feature extraction, fine-tuning and sweeps share this cache. It can always be recomputed.

    python -m pipeline cache clear
"""

import argparse
import time

from pipeline.features import store
from pipeline.features.store import Store


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the word `clear`."""
    parser.add_argument(
        "action", nargs="?", choices=["list", "clear"], default="list", help="default: list"
    )


def run(activations: store.Config, options: argparse.Namespace) -> None:
    """List or remove cached activations."""
    cache = Store(activations)
    if options.action == "clear":
        cache.clear()
    entries = cache.entries()
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        name = f"{entry.key['backbone']} at {entry.key['cut']}, {entry.key['image_size']} px"
        print(f"{entry.size / 1e6:10.1f} MB  {used}  {name}")
    print(f"{sum(entry.size for entry in entries) / 1e6:10.1f} MB  in {cache.root}")
