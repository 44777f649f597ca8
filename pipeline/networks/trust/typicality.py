"""Typicality: how usual an image is for a classifier, and so how meaningful its answer.

features + probabilities of an image -> strangeness -> fraction of validation images that are at
least as strange. The distance to the nearest training images detects images far from all classes,
the confidence detects images between classes. Sources: Sun et al. 2022, Out-of-Distribution
Detection with Deep Nearest Neighbors; Bates et al. 2023, Testing for Outliers with Conformal
p-values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEIGHBOURS = 5
DIMENSIONS = 64
"""Dimensions of reduced features: main directions of the training images' features."""


@dataclass(frozen=True)
class Space:
    """Reduced features of training images.

    Attributes:
        axes: (D, d) directions.
        places: (M, d) positions of training images.
    """

    axes: NDArray[np.float32]
    places: NDArray[np.float32]


def space(features: NDArray[np.float32]) -> Space:
    """Fit the space of training images.

    Args:
        features: (M, D).
    """
    from sklearn.decomposition import TruncatedSVD

    most = min(DIMENSIONS, *features.shape)
    reduction = TruncatedSVD(most, random_state=0).fit(features.astype(np.float64))
    axes = reduction.components_.T.astype(np.float32)
    empty = Space(axes, np.zeros((0, most), np.float32))
    return Space(axes, positions(empty, features).astype(np.float32))


def positions(space: Space, features: NDArray[np.float32]) -> Floats:
    """Reduce (N, D) features to (N, d) directions of unit length.

    Not centred: otherwise what the training images have in common would not count, and an image
    without it would not be strange. Row by row, and without BLAS: an image's result must not depend
    on the rest of its batch.
    """
    reduced = np.empty((len(features), space.axes.shape[1]))
    for row, feature in enumerate(features):
        place = np.einsum("d,dk->k", feature.astype(np.float64), space.axes)
        reduced[row] = place / max(float(np.sqrt((place**2).sum())), 1e-12)
    return reduced


def distances(space: Space, positions: Floats) -> Floats:
    """Return the mean distance of (N, d) positions to the nearest training images: (N,)."""
    count = min(NEIGHBOURS, len(space.places))
    means = np.empty(len(positions))
    for row, position in enumerate(positions):
        squares = ((space.places - position) ** 2).sum(axis=1)
        means[row] = np.sqrt(np.partition(squares, count - 1)[:count]).mean()
    return means


def strangeness(
    distances: Floats, doubts: Floats, reference_distances: Floats, reference_doubts: Floats
) -> Floats:
    """Measure how rarely a validation image is as far away, or as doubtful, as each image.

    Beyond all validation images, strangeness keeps growing. Sums instead of the minimum would miss
    images that are far away but confident: distant validation images are mostly doubtful as well.

    Args:
        distances: (N,).
        doubts: (N,).
        reference_distances: (V,) of the validation images, ascending.
        reference_doubts: (V,) likewise.

    Returns:
        (N,).
    """
    rarest = np.minimum(_rarity(distances, reference_distances), _rarity(doubts, reference_doubts))
    values: Floats = -np.log(rarest)
    return values


def _rarity(values: Floats, reference: Floats) -> Floats:
    """Return the fraction of validation images with as high a value; less beyond all: (N,)."""
    beyond = np.maximum(values / max(float(reference[-1]), 1e-12), 1)
    return shares(values, reference) / beyond


def shares(values: Floats, reference: Floats) -> Floats:
    """Return the fraction of validation images with as high a value; never 0, a p-value.

    Args:
        values: (N,).
        reference: (V,) ascending.
    """
    at_least = len(reference) - np.searchsorted(reference, values, side="left")
    fractions: Floats = (1 + at_least) / (1 + len(reference))
    return fractions
