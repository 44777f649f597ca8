"""Activations of the frozen part, computed once and kept by content.

lower(images) -> memory-mapped array. Knows nothing of training.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline import workspace
from pipeline.arrays import RowWriter
from pipeline.inference import Floats, Forward
from pipeline.outputs import replacing_file


def activations(
    forward: Forward, images: Any, rows: NDArray[np.int64], key: dict[str, object]
) -> Floats:
    """The lower part's outputs for some pictures, from the store if they are there.

    Args:
        forward: The lower part of a backbone.
        images: (N, H, W, 3) uint8.
        rows: (M,) which pictures.
        key: Everything the result depends on beside the rows and the library versions.

    Returns:
        (M, h, w, C) float32, memory-mapped.
    """
    versions = {"keras": keras.version(), "tensorflow": tf.version.VERSION}
    full_key = {**key, "rows": rows.tobytes().hex(), "versions": versions}
    path = workspace.work("activations", full_key).with_suffix(".npy")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as aside:
            write(aside, forward, images, rows, "activations")
    stored: Floats = np.load(path, mmap_mode="r")
    return stored


def write(
    path: Path, forward: Forward, images: Any, rows: NDArray[np.int64] | None, desc: str
) -> None:
    """Write the outputs for some pictures to a .npy file, never holding more than a batch."""
    with RowWriter(path, forward.output_shape, np.float32) as rows_written:
        for batch in forward.batches(images, rows, desc):
            rows_written.append(batch)
