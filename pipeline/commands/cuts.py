"""The table of a backbone's cut points, for people who choose one."""

import math
from dataclasses import replace
from typing import Any

from pipeline import backbones, cuts

_USUAL_SIZE_PX = 224


def show(backbone: Any, image_size: int, seed: int) -> None:
    """Print the cut points of a backbone, shallow to deep; needs no weights.

    Args:
        backbone: `Config` of one of `pipeline.backbones`.
        image_size: Side of the pictures in px; 224 instead where it is too small for
            the networks of keras.applications.
        seed: Of the random weights.
    """
    if hasattr(backbone, "weights"):
        backbone = replace(backbone, weights=None)
    if backbone.kind == "keras_application" and image_size < 32:
        image_size = _USUAL_SIZE_PX
    built = backbones.build(backbone, image_size, seed)
    points = cuts.describe(built.model)
    rows = _rows(points)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{built.name} at {image_size} px: {len(points)} cut points, from the pictures up.")
    print("speed-up: of an epoch of fine-tuning above it, on cached activations, in theory.\n")
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if n in (0, 2) else c.rjust(w) for n, (c, w) in enumerate(cells)]
        print("  ".join(aligned).rstrip())


def _rows(points: list[cuts.CutPoint]) -> list[tuple[str, ...]]:
    names = ("cut point", "index", "block", "activations", "kB", "FLOPs below", "parameters below")
    rows: list[tuple[str, ...]] = [(*names, "speed-up")]
    for point in points:
        above = 1 - point.flops_below
        speed_up = (1 + 2 * above) / (3 * above) if above > 0 else math.inf
        rows.append(
            (
                point.name,
                str(point.index),
                point.block,
                " x ".join(map(str, point.shape)),
                f"{point.bytes_a_picture / 1000:.1f}",
                f"{point.flops_below:.1%}",
                f"{point.parameters_below:.1%}",
                f"{speed_up:.1f}x" if speed_up < 100 else "> 100x",
            )
        )
    return rows
