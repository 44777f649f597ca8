"""How usual an image is to a classifier: whether its answer means anything.

features + probabilities of an image -> strangeness -> the share of validation images that
are stranger. The distance to the nearest training images tells what is far from all classes,
the confidence what lies between them. Sources: Sun et al. 2022, Out-of-Distribution Detection
with Deep Nearest Neighbors; Bates et al. 2023, Testing for Outliers with Conformal p-values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 5
DIMENSIONS = 64
"""Of a position: the main directions of the training images' features."""


@dataclass(frozen=True)
class Space:
    """Where images lie, as a classifier sees them.

    Attributes:
        axes: (D, d) directions.
        places: (M, d) positions of training images.
    """

    axes: NDArray[np.float32]
    places: NDArray[np.float32]


def space(features: NDArray[np.float32]) -> Space:
    """The space of training images.

    Args:
        features: (M, D).
    """
    from sklearn.decomposition import TruncatedSVD

    most = min(DIMENSIONS, *features.shape)
    found = TruncatedSVD(most, random_state=0).fit(features.astype(np.float64))
    axes = found.components_.T.astype(np.float32)
    empty = Space(axes, np.zeros((0, most), np.float32))
    return Space(axes, positions(empty, features).astype(np.float32))


def positions(space: Space, features: NDArray[np.float32]) -> Floats:
    """(N, D) -> (N, d): directions, of unit length.

    As seen from zero: seen from the middle of the training images, what they have in common
    would not count, and what lacks it would be in no way strange. Row by row, and not by BLAS:
    what an image gives must not depend on its company.
    """
    found = np.empty((len(features), space.axes.shape[1]))
    for row, one in enumerate(features):
        place = np.einsum("d,dk->k", one.astype(np.float64), space.axes)
        found[row] = place / max(float(np.sqrt((place**2).sum())), 1e-12)
    return found


def distances(space: Space, positions: Floats) -> Floats:
    """(N, d) -> (N,): mean distance to the nearest training images."""
    count = min(NEIGHBOURS, len(space.places))
    found = np.empty(len(positions))
    for row, position in enumerate(positions):
        squares = ((space.places - position) ** 2).sum(axis=1)
        found[row] = np.sqrt(np.partition(squares, count - 1)[:count]).mean()
    return found


def doubts(probabilities: NDArray[np.float32]) -> Floats:
    """(N, K) -> (N,): one minus the probability of the predicted class."""
    found: Floats = 1 - probabilities.max(axis=1).astype(np.float64)
    return found


def strangeness(
    distances: Floats, doubts: Floats, known_distances: Floats, known_doubts: Floats
) -> Floats:
    """(N,): how rarely a validation image is as far away, or as doubtful, whichever is rarer.

    What exceeds all validation images is the stranger the more it does. Sums instead would let
    pass what is far away and sure: far ones among the validation images are mostly unsure, too.

    Args:
        distances: (N,).
        doubts: (N,).
        known_distances: (V,) of the validation images, ascending.
        known_doubts: (V,) likewise.
    """
    rarest = np.minimum(_rarity(distances, known_distances), _rarity(doubts, known_doubts))
    found: Floats = -np.log(rarest)
    return found


def _rarity(values: Floats, known: Floats) -> Floats:
    """(N,): the share of validation images with as high a value; less the further beyond all."""
    beyond = np.maximum(values / max(float(known[-1]), 1e-12), 1)
    return shares(values, known) / beyond


def shares(values: Floats, known: Floats) -> Floats:
    """(N,): the share of validation images with as high a value; never 0, a p-value.

    Args:
        values: (N,).
        known: (V,) ascending.
    """
    at_least = len(known) - np.searchsorted(known, values, side="left")
    found: Floats = (1 + at_least) / (1 + len(known))
    return found
