"""Whether images are like those that a classifier was made with.

two samples of what images are like -> a test for each trait, corrected for their number.
Sources: Rabanser, Guennemann and Lipton 2019, Failing Loudly: An Empirical Study of Methods for
Detecting Dataset Shift (one test a trait, and a correction); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""How often images that are alike may be said to differ, all tests together."""
LEAST = 0.1
"""A difference smaller than this is none, however many images show it."""

_DRAWS = 2000


@dataclass(frozen=True)
class Finding:
    """What a test says of a trait.

    Attributes:
        trait: Its name.
        before: Middle value of the images that the classifier was made with.
        now: Of the others.
        difference: 0 to 1: the largest distance between the two distributions; of classes, the
            share that would have to change.
        p_value: Corrected for the number of tests.
    """

    trait: str
    before: str
    now: str
    difference: float
    p_value: float

    @property
    def differs(self) -> bool:
        """Whether by more than chance, and by enough."""
        return self.p_value < LEVEL and self.difference >= LEAST


def compare(
    before: Mapping[str, NDArray[np.float64]],
    now: Mapping[str, NDArray[np.float64]],
    labels_before: NDArray[np.int64],
    labels_now: NDArray[np.int64],
    classes: list[str],
) -> list[Finding]:
    """Test every trait, and the classes predicted.

    Args:
        before: Trait -> (V,) values.
        now: Trait -> (N,) values.
        labels_before: (V,) predicted class indices.
        labels_now: (N,) likewise.
        classes: K names.
    """
    from scipy.stats import ks_2samp

    found = []
    for trait, values in now.items():
        test = ks_2samp(before[trait], values)
        was, now_is = (f"{np.median(one):.4g}" for one in (before[trait], values))
        found.append(Finding(trait, was, now_is, float(test.statistic), float(test.pvalue)))
    found.append(_classes(labels_before, labels_now, classes))
    return _holm(found)


def _classes(before: NDArray[np.int64], now: NDArray[np.int64], classes: list[str]) -> Finding:
    """Whether the classes predicted occur as often: a permutation test."""
    counts = [np.bincount(one, minlength=len(classes)) for one in (before, now)]
    shares = [count / count.sum() for count in counts]
    difference = np.abs(shares[0] - shares[1]).sum() / 2
    both = counts[0] + counts[1]
    drawn = np.random.default_rng(0).multivariate_hypergeometric(both, len(now), _DRAWS)
    rest = (both - drawn) / len(before)
    chance = np.abs(drawn / len(now) - rest).sum(axis=1) / 2
    p_value = (1 + (chance >= difference - 1e-12).sum()) / (1 + _DRAWS)
    often = [classes[int(count.argmax())] for count in counts]
    was, now_is = (f"{name} {share.max():.0%}" for name, share in zip(often, shares, strict=True))
    return Finding("predicted class", was, now_is, float(difference), float(p_value))


def _holm(found: list[Finding]) -> list[Finding]:
    """The same with p-values that hold for all together."""
    order = np.argsort([one.p_value for one in found], kind="stable")
    corrected, highest = list(found), 0.0
    for rank, place in enumerate(order):
        p_value = min(1.0, found[place].p_value * (len(found) - rank))
        highest = max(highest, p_value)
        corrected[place] = replace(found[place], p_value=highest)
    return corrected
