"""List where a backbone can be cut, with work, memory and speed-up of each cut.

The cut is the layer at which the network is split into a frozen lower part and a trainable upper
part. `finetune.cut` takes the names in the first column. The speed-up is that of a fine-tuning
epoch on cached activations, in theory. Weights are only needed for models and presets on disk.

    python -m pipeline cuts backbone.use=resnet50
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.networks import backbones, runtime
from pipeline.networks.backbones import BackboneConfig
from pipeline.settings import is_auto
from pipeline.stages import prepare as prepare_stage

if TYPE_CHECKING:
    from pipeline.features.cuts import CutPoint

SECTIONS = ("backbone", "prepare.image_size")
_USUAL_SIZE_PX = 224


def run(backbone: BackboneConfig, prepare: prepare_stage.Config, seed: int, threads: int) -> None:
    """Print the cut points of the backbone, from shallow to deep."""
    runtime.configure(seed, threads)
    from pipeline.features import cuts

    image_size = prepare.image_size
    backbone = backbones.without_weights(backbone)
    if is_auto(image_size):
        image_size = _USUAL_SIZE_PX
    if backbone.kind == "keras_application" and image_size < 32:
        image_size = _USUAL_SIZE_PX  # the prepared images are too small for these networks
    built = backbones.build(backbone, image_size, seed)
    points = cuts.describe(built.model)
    rows = _rows(points)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"{built.name} at {image_size} px: {len(points)} cut points, from input to output\n")
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if n in (0, 2) else c.rjust(w) for n, (c, w) in enumerate(cells)]
        print("  ".join(aligned).rstrip())


def _rows(points: list[CutPoint]) -> list[tuple[str, ...]]:
    names = ("finetune.cut", "index", "block", "activations", "kB", "FLOPs below", "params below")
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
                f"{point.bytes_per_image / 1000:.1f}",
                f"{point.flops_below:.1%}",
                f"{point.parameters_below:.1%}",
                f"{speed_up:.1f}x" if speed_up < 100 else "> 100x",
            )
        )
    return rows
