"""Whether one model is better than another, in words, and how small a difference could show.

differences with intervals + a paired test -> a sentence for each metric that counts.
"""

import math
from statistics import NormalDist

from pipeline.evaluation.metrics import LOWER_IS_BETTER

LEVEL = 0.95
"""Of the intervals."""
_POWER = 0.8
_USUALLY_APART = 0.1
"""Share of the images that exactly one of two similar models gets right, where none is known."""


def detectable(images: int, apart: float = _USUALLY_APART) -> float:
    """The difference of accuracy that four comparisons in five would show.

    Args:
        images: That both models are judged on.
        apart: Share of them that exactly one of the two gets right.
    """
    normal = NormalDist()
    deviations = normal.inv_cdf(0.5 + LEVEL / 2) + normal.inv_cdf(_POWER)
    # At least one image: no test can tell less.
    return min(1.0, deviations * math.sqrt(max(apart, 1 / images) / images))


def of_accuracy(
    before: float,
    after: float,
    bounds: tuple[float, float],
    only: tuple[int, int],
    p_value: float,
    images: int,
) -> str:
    """By McNemar's test and the interval, which must agree.

    Args:
        before: Accuracy of the first model.
        after: Of the second.
        bounds: Of the interval of the difference.
        only: Images that only the first gets right, and only the second.
        p_value: Of McNemar's exact test.
        images: How many.
    """
    scores = f"accuracy {before:.4f} -> {after:.4f}"
    if before == after and not any(only):
        return f"no difference: {scores} on {images} images"
    points = [100 * value for value in (after - before, *bounds)]
    measured = (
        f"{scores}, {points[0]:+.1f} points (95 % interval {points[1]:+.1f} to {points[2]:+.1f}; "
        f"McNemar p = {p_value:.2g}; {images} images)"
    )
    if p_value < 1 - LEVEL and bounds[0] > 0:
        return f"better: {measured}"
    if p_value < 1 - LEVEL and bounds[1] < 0:
        return f"worse: {measured}"
    least = 100 * detectable(images, sum(only) / images)
    return (
        f"no difference that {images} images can tell: {measured}; less than {least:.1f} "
        "points would hardly show"
    )


def of_metric(
    name: str, before: float, after: float, bounds: tuple[float, float], images: int
) -> str:
    """By the interval of the difference.

    Args:
        name: Of the metric.
        before: Of the first model.
        after: Of the second.
        bounds: Of the interval of the difference.
        images: How many.
    """
    low, high = bounds
    measured = (
        f"{name} {before:.4f} -> {after:.4f}, {after - before:+.4f} (95 % interval {low:+.4f} to "
        f"{high:+.4f})"
    )
    if low <= 0 <= high:
        least = (high - low) / 2 * (1 + NormalDist().inv_cdf(_POWER) / NormalDist().inv_cdf(0.975))
        return (
            f"no difference that {images} images can tell: {measured}; less than {least:.4f} "
            "would hardly show"
        )
    rises = low > 0
    return f"{'worse' if rises == (name in LOWER_IS_BETTER) else 'better'}: {measured}"
