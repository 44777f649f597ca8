"""The classifier in three lines of Python, for programs and notebooks.

    >>> from pipeline import Classifier
    >>> classifier = Classifier.load("outputs/finetune/model.keras")
    >>> classifier.predict([]).columns[:3].tolist()
    ['image', 'prediction', 'probability']

It gives the answers that predict and a served model give.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.data.image_file import Pixels
from pipeline.errors import InputError
from pipeline.release import registry
from pipeline.sections import Tracking
from pipeline.serving import pyfunc
from pipeline.serving.classifier import MODEL
from pipeline.serving.classifier import Classifier as _Classifier
from pipeline.serving.content import content
from pipeline.storage import workspace


class Classifier:
    """A trained classifier.

    Args:
        path: A .keras file of this pipeline.
        allow_code: Let Lambda layers in the file run: only if you trust it.

    Raises:
        InputError: There is no such model, or it cannot be read.
    """

    def __init__(self, path: Path, allow_code: bool) -> None:
        self._classifier = _Classifier(path, allow_code)
        self._service = pyfunc.Service(self._classifier, sys.maxsize)

    @classmethod
    def load(cls, path: str | Path = MODEL, *, allow_code: bool = False) -> Classifier:
        """Load a model file; arguments and errors as for the class."""
        return cls(Path(path), allow_code or registry.is_own(str(path)))

    @classmethod
    def from_registry(
        cls, uri: str = "models:/classifier@champion", *, tracking_uri: str | None = None
    ) -> Classifier:
        """Load a model from the MLflow registry, in any folder.

        Args:
            uri: `models:/NAME@champion`, `models:/NAME/VERSION` or `models:/MODEL_ID`.
            tracking_uri: Tracking store; by default $MLFLOW_TRACKING_URI, or the project's own.

        Raises:
            InputError: There is no such store or model.
        """
        named = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not named and not (workspace.root() / "mlflow.db").exists():
            raise InputError(
                f"no tracking store in {Path.cwd()}: pass tracking_uri, or set MLFLOW_TRACKING_URI"
            )
        return cls(registry.download(uri, Tracking(uri=tracking_uri)), allow_code=True)

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self._classifier.card.classes

    def predict(self, images: Any) -> pd.DataFrame:
        """Classify images.

        Args:
            images: An image, or a list of images: paths, bytes of files, PIL images, or arrays
                (H, W) or (H, W, 3) of 0 to 255.

        Returns:
            One row per image: image (its path), prediction, probability, probabilities (class ->
            probability), known (False if unlike the training data), typicality, labels
            (prediction set, or None), error (why it could not be read, else None).
        """
        several = list(images) if isinstance(images, (list, tuple, pd.Series)) else [images]
        rows = pd.DataFrame({pyfunc.COLUMN: pd.Series(map(_row, several), dtype=object)})
        answers = self._service.predict(rows)
        paths = [str(image) if isinstance(image, (str, Path)) else "" for image in several]
        answers.insert(0, "image", paths)
        return answers

    def explain(self, image: Any) -> Pixels:
        """Show the regions that speak for the prediction (Grad-CAM).

        Args:
            image: As for `predict`.

        Returns:
            (H, W, 3) uint8 RGB, the image as the network sees it, with a heat map over it.

        Raises:
            BadImage: It cannot be read.
            InputError: The network keeps no rows and columns.
        """
        pixels = self._classifier.decode(content(_row(image), sys.maxsize))
        return self._classifier.explain(pixels)


def _row(image: Any) -> Any:
    return Path(image) if isinstance(image, str) else image
