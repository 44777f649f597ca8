"""scikit-learn's bundled handwritten digits: 1,797 real 8 x 8 images, no network needed.

Source: the test set of the UCI Optical Recognition of Handwritten Digits data, CC BY 4.0.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.intake.sources import Sample, SourceConfig


@dataclass
class Config(SourceConfig):
    """The digits need no further settings."""

    kind: str = "digits"


def images(config: Config) -> Iterator[Sample]:
    """Yield every digit as a PNG, bright ink on black, as in scikit-learn."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index, (values, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = io.BytesIO()
        Image.fromarray(np.round(values * (255 / 16)).astype(np.uint8)).save(file, "PNG")
        yield Sample(f"{label}/{index:04d}.png", str(label), content=file.getvalue())
