"""Image traits that reveal a change of camera or light, independent of the subject.

pixels + size in the file -> named numbers.
"""

import numpy as np

from pipeline.data.image_file import Pixels

NAMES = ("brightness", "contrast", "colour", "sharpness", "width", "height")
"""Fractions of the pixel range, except for the last two, which are in px."""


def of(pixels: Pixels, width: int, height: int) -> dict[str, float]:
    """Measure the traits of an image, (H, W, 3) as for the network, and its size in the file."""
    values_01 = pixels.astype(np.float32) / 255
    grey = values_01.mean(axis=2)
    values = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "colour": (values_01.max(axis=2) - values_01.min(axis=2)).mean(),
        "sharpness": _steps(grey, 0) + _steps(grey, 1),
        "width": width,
        "height": height,
    }
    return {name: round(float(values[name]), 6) for name in NAMES}


def _steps(grey: np.ndarray, axis: int) -> float:
    """Return the mean difference of neighbouring pixels."""
    steps = np.abs(np.diff(grey, axis=axis))
    return float(steps.mean()) if steps.size else 0.0
