"""Push every picture once through the frozen backbone.

images.npy -> features.npy (N, D), backbone.json.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.outputs import write_json


@dataclass
class Config:
    """Section `extract_features`.

    Attributes:
        batch_size: Pictures of a forward pass, here, in fine-tuning and in evaluation.
    """

    batch_size: int = 32


def run(config: Config, *, seed: int, backbone: Any, prepared: Path, out: Path) -> dict[str, float]:
    """Extract features.

    Args:
        config: Section `extract_features`.
        seed: Of random weights, where the backbone has no others.
        backbone: `Config` of one of `pipeline.backbones`.
        prepared: Output of prepare.
        out: Folder to write to; exists and is empty.

    Returns:
        Pictures per second, the number of features and of weights.

    Raises:
        InputError: A batch size below 1, or a backbone that cannot be had.
    """
    from pipeline import activations, backbones
    from pipeline.inference import Forward

    if config.batch_size < 1:
        raise InputError(f"extract_features.batch_size must be at least 1, got {config.batch_size}")
    data = Manifest(prepared)
    built = backbones.build(backbone, data.image_size, seed)
    started = perf_counter()
    forward = Forward(built.model, config.batch_size)
    activations.write(out / "features.npy", forward, data.images, None, "extract")
    rate = len(data.rows) / (perf_counter() - started)
    parameters = int(built.model.count_params())
    write_json(
        out / "backbone.json",
        {
            "name": built.name,
            "weights_sha256": built.weights_sha256,
            "parameters": parameters,
            "features": forward.output_shape[0],
            "config": asdict(backbone),
        },
    )
    print(f"{len(data.rows)} pictures at {rate:.0f} a second, {forward.output_shape[0]} features")
    return {
        "pictures_per_second": rate,
        "features": forward.output_shape[0],
        "backbone_parameters": parameters,
    }
