"""Push every picture once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json; where training pictures are augmented, also
augment.json and augmented.npy (K - 1, M, D): the features of the M pictures' further views.

    python -m pipeline extract_features extract_features.batch_size=64
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.cluster.settings import Config as Cluster
from pipeline.features import augmentation, store
from pipeline.features.store import Store
from pipeline.networks import engines
from pipeline.networks.backbones import BackboneConfig
from pipeline.settings import setting


@dataclass
class Config:
    """Section `extract_features`."""

    batch_size: int = setting(
        32, "Pictures of a forward pass, here, in fine-tuning and in evaluation.", least=1
    )


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: BackboneConfig,
    augment: augmentation.Config,
    forward: engines.Config,
    cluster: Cluster,
    activations: store.Config,
    prepared: Path,
    out: Path,
) -> dict[str, float]:
    """Extract features; see `pipeline.features.extraction.extract`, which a sweep calls, too."""
    from pipeline.features.extraction import extract

    return extract(
        backbone,
        augment,
        Store(activations),
        engine=forward,
        cluster=cluster,
        batch_size=config.batch_size,
        seed=seed,
        threads=threads,
        prepared=prepared,
        out=out,
    )
