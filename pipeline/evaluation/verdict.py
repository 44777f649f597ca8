"""Compare two models in words, and estimate how small a difference can be detected.

differences with intervals + a paired test -> one sentence per metric.
"""

import math
from statistics import NormalDist

from pipeline.data.tasks import SMALL, lower_is_better

LEVEL = 0.95
"""Confidence level of the intervals."""
_POWER = 0.8
_LARGE = 1000
"""Numbers from here on are written without decimals."""
_ROUNDING = 1e-5
"""Relative difference that another engine may cause."""
_TYPICAL_DISAGREEMENT = 0.1
"""Fraction of images that only one of two similar models classifies correctly, if unknown."""


def detectable(images: int, disagreement: float = _TYPICAL_DISAGREEMENT) -> float:
    """Return the difference in accuracy that four comparisons in five would detect.

    `disagreement` is the fraction of images that only one of the two classifies correctly.
    """
    normal = NormalDist()
    deviations = normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(_POWER)
    # At least one image: no test can detect less.
    return min(1.0, deviations * math.sqrt(max(disagreement, 1 / images) / images))


def of_accuracy(
    before: float,
    after: float,
    bounds: tuple[float, float],
    only: tuple[int, int],
    p_value: float,
    images: int,
) -> str:
    """Describe a difference in accuracy; McNemar's test and the interval must agree.

    `only` are the numbers of images that only the first, and only the second, has right.
    """
    scores = f"{100 * before:.1f} % -> {100 * after:.1f} %"
    if before == after and not any(only):
        return f"accuracy is the same: {scores} on {images} images"
    low, high = (100 * bound for bound in bounds)
    change = f"95 % CI of the difference {low:+.1f} to {high:+.1f} points"
    if p_value < 1 - LEVEL and bounds[0] > 0:
        return f"accuracy is better: {scores} ({change})"
    if p_value < 1 - LEVEL and bounds[1] < 0:
        return f"accuracy is worse: {scores} ({change})"
    least = 100 * detectable(images, sum(only) / images)
    return (
        f"no measurable difference in accuracy: {scores} ({change}; {images} images would "
        f"probably miss differences below {least:.1f} points)"
    )


def of_metric(name: str, before: float, after: float, bounds: tuple[float, float]) -> str:
    """Describe a difference in another metric, from its interval."""
    low, high = bounds
    title = name.replace("_", " ").replace("f1", "F1")
    largest = max(abs(before), abs(after))
    form = ",.0f" if largest >= _LARGE else ".1e" if 0 < largest < SMALL else ".3f"
    interval = f"95 % CI of the difference {low:+{form}} to {high:+{form}}"
    change = f"{before:{form}} -> {after:{form}} ({interval})"
    if low <= 0 <= high or math.isclose(before, after, rel_tol=_ROUNDING):
        return f"no measurable difference in {title}: {change}"
    rises = low > 0
    return f"{title} is {'worse' if rises == lower_is_better(name) else 'better'}: {change}"
