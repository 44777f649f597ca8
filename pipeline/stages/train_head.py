"""Train a new head on the extracted features.

features.npy, augmented.npy + labels -> head.keras, history.csv, summary.json.

    python -m pipeline train_head train_head.learning_rate=1e-2
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.networks import heads
from pipeline.training.settings import Training


@dataclass
class Config(Training):
    """Section `train_head`."""


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    head: heads.Config,
    prepared: Path,
    features: Path,
    out: Path,
    log: Callable[[dict[str, float], int], None],
) -> dict[str, float]:
    """Train a head; see `pipeline.training.head.train`, which a sweep calls, too."""
    from pipeline.training.head import train

    return train(
        config,
        head,
        seed=seed,
        threads=threads,
        prepared=prepared,
        features=features,
        out=out,
        log=log,
    )
