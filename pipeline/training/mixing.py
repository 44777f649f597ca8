"""MixUp: train on mixtures of two examples, at the place where training begins.

batches -> batches whose examples have partners; the model mixes their activations, which at a
cut is the same whether they were kept or are computed anew. Sources: Zhang et al. 2018, mixup;
Verma et al. 2019, Manifold Mixup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np


def mixed(
    batches: Iterable[tuple[Any, ...]], alpha: float, rng: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    """Give each example of a batch a partner, and the batch a share.

    Args:
        batches: (B, ...) inputs, (B, K) one-hot labels and maybe (B,) weights.
        alpha: Both parameters of the Beta distribution of the share; 0 mixes nothing.
        rng: Draws partners and shares.

    Yields:
        ((B, ...) inputs, (B,) partners, () share), labels and weights mixed by that share.
    """
    for inputs, *rest in batches:
        if not alpha:
            yield inputs, *rest
            continue
        partners = rng.permutation(len(inputs)).astype(np.int32)
        share = np.float32(rng.beta(alpha, alpha))
        blended = [share * part + (1 - share) * part[partners] for part in rest]
        yield (inputs, partners, share), *blended
