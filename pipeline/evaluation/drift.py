"""Data drift: test whether images are like those that a classifier was trained with.

two samples of image traits -> a test for each trait, corrected for multiple testing. Sources:
Rabanser, Guennemann and Lipton 2019, Failing Loudly: An Empirical Study of Methods for Detecting
Dataset Shift (one test per trait, with correction); Holm 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Family-wise probability of reporting a difference where there is none."""
MIN_DIFFERENCE = 0.1
"""Smaller differences are ignored, however many images show them."""

_DRAWS = 2000


@dataclass(frozen=True)
class Finding:
    """Result of the test for a trait.

    Attributes:
        trait: Name of the trait.
        before: Median for the reference images.
        now: Median for the new images.
        difference: 0 to 1: the largest distance between the two distributions; for classes, the
            fraction that would have to change.
        p_value: Corrected for the number of tests.
    """

    trait: str
    before: str
    now: str
    difference: float
    p_value: float

    @property
    def differs(self) -> bool:
        """True if the difference is significant and large enough."""
        return self.p_value < LEVEL and self.difference >= MIN_DIFFERENCE


def compare(
    before: Mapping[str, NDArray[np.float64]],
    now: Mapping[str, NDArray[np.float64]],
    labels: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    classes: Sequence[str] = (),
) -> list[Finding]:
    """Test every trait, and the predicted classes, (V,) and (N,) indices, if there are any."""
    from scipy.stats import ks_2samp

    results = []
    for trait, values in now.items():
        test = ks_2samp(before[trait], values)
        was, now_is = (f"{np.median(sample):.4g}" for sample in (before[trait], values))
        results.append(Finding(trait, was, now_is, float(test.statistic), float(test.pvalue)))
    if labels:
        results.append(_classes(*labels, classes))
    return _holm(results)


def _classes(before: NDArray[np.int64], now: NDArray[np.int64], classes: Sequence[str]) -> Finding:
    """Test if the predicted classes are equally frequent, by permutation."""
    counts = [np.bincount(labels, minlength=len(classes)) for labels in (before, now)]
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


def _holm(results: list[Finding]) -> list[Finding]:
    """Correct the p-values for multiple testing."""
    order = np.argsort([result.p_value for result in results], kind="stable")
    corrected, highest = list(results), 0.0
    for rank, place in enumerate(order):
        p_value = min(1.0, results[place].p_value * (len(results) - rank))
        highest = max(highest, p_value)
        corrected[place] = replace(results[place], p_value=highest)
    return corrected
