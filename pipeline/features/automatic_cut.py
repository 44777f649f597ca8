"""The cut where nobody names one.

backbone -> a cut point and the reason. Knows nothing of data or training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

BETWEEN = (0.2, 0.4)
"""Share of the work that may lie below. What lies lower, edges and textures, serves any pictures
as it is; with much less above, a network cannot adapt to pictures far from those it was trained
on (NOTES.md)."""


def derive(model: keras.Model, batch_norm: bool) -> Derived:
    """Choose the cut with the smallest activations among those with enough to train above.

    Args:
        model: A backbone.
        batch_norm: Whether BatchNormalization trains too.
    """
    from pipeline.features import cuts

    points = {point.name: point for point in cuts.describe(model)}
    # A layer that learns trains from the cut point below it; the first one above each counts.
    above: dict[str, str] = {}
    for layer in cuts.learning_layers(model, batch_norm):
        above.setdefault(cuts.resolve(model, layer, batch_norm).at, layer)
    low, high = BETWEEN
    between = [at for at in above if low <= points[at].flops_below <= high]
    at = (
        min(between, key=lambda name: points[name].bytes_a_picture)
        if between
        else min(above, key=lambda name: abs(points[name].flops_below - low))
    )
    below = points[at]
    return Derived(
        above[at],
        f"{below.flops_below:.0%} of the work and {below.parameters_below:.0%} of the parameters "
        f"lie below, computed once; {below.bytes_a_picture / 1000:.0f} kB a picture",
    )
