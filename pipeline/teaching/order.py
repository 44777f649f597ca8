"""The order in which images are worth a label.

features + probabilities -> rows. While few are labelled, typical images of regions without a label;
then uncertain images that differ from each other. Sources: Hacohen, Dekel and Weinshall 2022,
Active Learning on a Budget (TypiClust); Zhdanov 2019, Diverse Mini-batch Active Learning.
benchmarks/teach.py compares it with others.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pipeline.intake.label_file import HELD_OUT

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_PER_CLASS = 5
"""Labels per class from which on uncertainty says more than typicality."""
_UNCERTAIN = 20
"""Most uncertain images per image that is suggested, of which the most different ones are taken."""
_NEIGHBOURS, _REGIONS, _FEW = 20, 300, 60
_MANY = 2000
"""Images of a region whose density is measured exactly."""
_SAME = 0.02
"""Squared distance of near duplicates, as a fraction of the mean one."""


def mixed(
    useful: Collection[int], held_out: Collection[int], labelled: Collection[int], count: int
) -> list[int]:
    """Choose the next images: every fifth label is of a held-out image, the others are useful.

    Args:
        useful: Rows, the best first.
        held_out: Held-out rows, in the order in which they are labelled.
        labelled: Rows that have a label or were skipped.
        count: Number of images; fewer if there are no more.
    """
    drawn = sum(row in labelled for row in held_out)
    best, waiting = ([row for row in rows if row not in labelled] for rows in (useful, held_out))
    chosen: list[int] = []
    while (best or waiting) and len(chosen) < count:
        due = (drawn + 1) * HELD_OUT <= len(labelled) + len(chosen) + 1
        if waiting and (due or not best):
            chosen.append(waiting.pop(0))
            drawn += 1
        else:
            chosen.append(best.pop(0))
    return chosen


def suggest(
    places: Floats,
    probabilities: Floats,
    labelled: Collection[int],
    count: int,
    held_out: Collection[int] = (),
) -> Rows:
    """Choose the images that are most worth a label, the best first.

    Args:
        places: (N, d) reduced features.
        probabilities: (N, K) of the present head.
        labelled: Rows that are not to be suggested, nor near duplicates of them.
        count: Number of images; fewer if there are no more.
        held_out: Further rows that are not to be suggested.
    """
    before = np.array(sorted(labelled), np.int64)
    rest = np.setdiff1d(np.arange(len(places)), [*before, *held_out])
    fresh = rest[~_same(places[rest], places[before])]
    rest = fresh if len(fresh) else rest
    count = min(count, len(rest))
    if not count:
        return rest
    if len(before) < _PER_CLASS * probabilities.shape[1] or probabilities.shape[1] < 2:
        return typical(places, before, rest, count)
    return _diverse(places, probabilities, rest, count)


def typical(places: Floats, before: Rows, rest: Rows, count: int) -> Rows:
    """Choose the most typical image of each region without a label, large regions first.

    Args:
        places: (N, d) reduced features.
        before: Rows that are labelled.
        rest: Rows to choose from.
        count: Number of images, at most those of `rest`.
    """
    every = np.concatenate([before, rest])
    regions = _clusters(places[every], min(len(before) + count, _REGIONS))
    free, taken = regions[len(before) :], np.bincount(regions[: len(before)], minlength=len(every))
    sizes = np.bincount(regions, minlength=len(every))
    queues = {region: _by_density(places, rest[free == region]) for region in set(free.tolist())}
    order = sorted(queues, key=lambda region: (taken[region], -sizes[region]))
    chosen: list[int] = []
    while len(chosen) < count:
        for region in order:
            if queues[region] and len(chosen) < count:
                chosen.append(queues[region].pop(0))
    return np.array(chosen, np.int64)


def _by_density(places: Floats, rows: Rows) -> list[int]:
    """Order rows by the mean distance to their nearest neighbours."""
    sample = places[rows[:: max(1, len(rows) // _MANY)]]
    apart = np.sqrt(distances(places[rows], sample))
    nearest = np.sort(apart, axis=1)[:, : _NEIGHBOURS + 1].mean(axis=1)
    ordered: list[int] = rows[np.argsort(nearest, kind="stable")].tolist()
    return ordered


def _diverse(places: Floats, probabilities: Floats, rest: Rows, count: int) -> Rows:
    """Choose the images next to the centres of the most uncertain ones."""
    ranked = np.sort(probabilities[rest], axis=1)
    margins = ranked[:, -1] - ranked[:, -2]
    doubtful = np.argsort(margins, kind="stable")[: _UNCERTAIN * count]
    rows, weights = rest[doubtful], 1 - margins[doubtful] + 1e-3
    regions = _clusters(places[rows], count, weights)
    chosen = []
    for region in np.unique(regions):
        own = np.flatnonzero(regions == region)
        middle = np.average(places[rows[own]], axis=0, weights=weights[own])
        chosen.append(own[((places[rows[own]] - middle) ** 2).sum(axis=1).argmin()])
    # Fewer regions than images: the most uncertain of the others.
    others = [place for place in range(len(rows)) if place not in chosen]
    ordered: Rows = rows[np.array([*sorted(chosen), *others][:count])]
    return ordered


def _clusters(places: Floats, count: int, weights: Floats | None = None) -> Rows:
    """Divide (M, d) places into at most `count` regions."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    count = min(count, len(places))
    if len(places) <= _MANY:
        starts = 4 if count <= _FEW else 1
        kind = KMeans(count, n_init=starts, random_state=0)
    else:
        kind = MiniBatchKMeans(count, n_init=1, random_state=0, batch_size=_MANY, max_iter=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies: fewer places than regions
        regions: Rows = kind.fit(places, sample_weight=weights).labels_.astype(np.int64)
    return regions


def _same(places: Floats, others: Floats) -> NDArray[np.bool_]:
    """Mark places that are near duplicates of others: (M,)."""
    limit = _SAME * 2 * float((places**2).sum(axis=1).mean()) if len(places) else 0.0
    if not len(others):
        return np.zeros(len(places), bool)
    parts = np.array_split(places, 1 + len(places) // _MANY)
    nearest = [distances(part, others).min(axis=1) for part in parts]
    return np.asarray(np.concatenate(nearest) < limit)


def distances(places: Floats, others: Floats) -> Floats:
    """Squared distances (M, L) of places to others."""
    lengths = (places**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)
    squares: Floats = np.maximum(lengths - 2 * places @ others.T, 0)
    return squares
