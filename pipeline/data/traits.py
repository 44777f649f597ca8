"""What images are like, whatever they show: by which a change of camera or light is noticed.

pixels + size of the file's image -> numbers with names.
"""

import numpy as np

from pipeline.data.image_file import Pixels

NAMES = ("brightness", "contrast", "colour", "sharpness", "width", "height")
"""Shares of the range of pixels, but for the last two, which are in px."""


def of(pixels: Pixels, width: int, height: int) -> dict[str, float]:
    """The traits of an image.

    Args:
        pixels: (H, W, 3) uint8 RGB, as the network gets it.
        width: In px, of the file's image.
        height: Likewise.
    """
    shown = pixels.astype(np.float32) / 255
    grey = shown.mean(axis=2)
    values = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "colour": (shown.max(axis=2) - shown.min(axis=2)).mean(),
        "sharpness": _steps(grey, 0) + _steps(grey, 1),
        "width": width,
        "height": height,
    }
    return {name: round(float(values[name]), 6) for name in NAMES}


def _steps(grey: np.ndarray, axis: int) -> float:
    """Mean difference of pixels side by side."""
    steps = np.abs(np.diff(grey, axis=axis))
    return float(steps.mean()) if steps.size else 0.0
