"""Read, judge, decode and split the pictures.

source -> manifest.csv, quarantine.csv, classes.txt, images.npy, summary.json.
Imports no TensorFlow.

    python -m pipeline prepare prepare.image_size=96
"""

from pathlib import Path
from typing import Any

from pipeline.cluster.settings import Config as Cluster
from pipeline.intake.settings import Config

__all__ = ["Config", "run"]


def run(config: Config, *, seed: int, data: Any, cluster: Cluster, out: Path) -> dict[str, float]:
    """Prepare a data set; see `pipeline.intake.preparing.prepare`, which a sweep calls, too."""
    from pipeline.intake.preparing import prepare

    return prepare(config, seed=seed, data=data, cluster=cluster, out=out)
