"""The frozen part of a network and its images: everything that activations depend on.

settings + backbone + images -> a forward pass to a cut, and its cache key.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.connection import Config as Cluster
from pipeline.data.manifest import Manifest
from pipeline.features import augmentation
from pipeline.features.store import Key
from pipeline.networks import backbones, engines, runtime
from pipeline.networks.backbones import Backbone, BackboneConfig
from pipeline.networks.forward import Forward


@dataclass(frozen=True)
class FrozenPart:
    """Settings of the frozen part's forward pass.

    Attributes:
        backbone: Section `backbone`.
        augment: Section `augment`.
        engine: Section `forward`.
        batch_size: Images per forward pass: `extract_features.batch_size`.
        seed: Seed of random weights, if the backbone has no others, and of views.
        threads: Number of threads.
        cluster: Section `cluster`, which does not affect results.
    """

    backbone: BackboneConfig
    augment: augmentation.Config
    engine: engines.Config
    batch_size: int
    seed: int
    threads: int
    cluster: Cluster = field(default_factory=Cluster)

    def build(self, image_size: int) -> Backbone:
        """Build the backbone for images of `image_size` px."""
        return backbones.build(self.backbone, image_size, self.seed)

    def key(self, body: Backbone) -> Key:
        """Return everything that features depend on, except the images."""
        return {
            "augment": asdict(self.augment) if self.augment.layers else None,
            "backbone": body.sha256,
            "batch_size": self.batch_size,
            **engines.described(self.engine),
            "seed": self.seed,
            "threads": self.threads,
        }


@dataclass(frozen=True)
class Source:
    """The frozen part and its input images.

    Attributes:
        frozen: Settings of the forward pass.
        model: The backbone: (B, H, W, 3) -> (B, D).
        backbone_sha256: Digest of the backbone, `Backbone.sha256`.
        images: (N, H, W, 3) uint8.
        images_sha256: Digest of the images.
    """

    frozen: FrozenPart
    model: Any
    backbone_sha256: str
    images: Any
    images_sha256: str
    _passes: dict[str, Forward] = field(default_factory=dict)

    @classmethod
    def of(cls, frozen: FrozenPart, body: Backbone, data: Manifest) -> Source:
        """Combine a backbone and a prepared dataset.

        Args:
            frozen: Settings of the forward pass, with the number of views.
            body: The backbone.
            data: The dataset.
        """
        from pipeline.features import cuts

        views = len(data.indices("train")) * (frozen.augment.count - 1)
        work = cuts.operations_of(body.model) * (len(data.rows) + views)
        frozen = replace(frozen, engine=frozen.engine.resolved(work))
        return cls(frozen, body.model, body.sha256, data.images, data.images_sha256)

    def key(self, cut: str, rows: NDArray[np.int64], precision: str = "float32") -> Key:
        """Return everything that the activations of some images at a cut depend on."""
        return {
            "backbone": self.model.name,
            "backbone_sha256": self.backbone_sha256,
            "batch_size": self.frozen.batch_size,
            "cut": cut,
            "images_sha256": self.images_sha256,
            "image_size": int(self.images.shape[1]),
            "precision": precision,
            "rows": digest(rows),
            **runtime.versions(),
            **engines.described(self.frozen.engine),
            "threads": self.frozen.threads,
        }

    def lower(self, cut: str) -> Any:
        """Return the network up to a cut."""
        from pipeline.features import cuts

        if cut not in cuts.cut_points(self.model):
            return self.model
        return cuts.split(self.model, cut)[0]

    def forward(self, cut: str) -> Forward:
        """Return the forward pass from images to a cut; the last one is kept for views."""
        if cut not in self._passes:
            self._passes.clear()
            self._passes[cut] = engines.forward(
                self.lower(cut),
                self.frozen.engine,
                batch_size=self.frozen.batch_size,
                threads=self.frozen.threads,
                images=self.images,
            )
        return self._passes[cut]


def digest(rows: NDArray[np.int64]) -> str:
    """Compute a digest of row numbers in order."""
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
