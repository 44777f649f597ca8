"""The champion's predictions for the candidate's images, stored or computed now."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.data.predictions import Predictions
from pipeline.data.tasks.facts import Labels
from pipeline.errors import InputError
from pipeline.intake import sources
from pipeline.intake.judging import chunks
from pipeline.intake.sources import SourceConfig
from pipeline.release import registry
from pipeline.release.candidate import Candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.serving.classifier import Classifier

_CHUNK = 256


def answers(
    config: Config, client: MlflowClient, champion: ModelVersion, candidate: Candidate
) -> tuple[Predictions, str]:
    """Return the champion's predictions for the candidate's images, and where they come from.

    Raises:
        InputError: The champion or the images cannot be read.
    """
    same = champion.tags.get("split.sha256") == candidate.tags["split.sha256"]
    if same and (stored := _stored(client, champion)):
        return stored, "stored predictions of the champion"
    from pipeline.serving.classifier import Classifier

    uri = f"models:/{champion.name}/{champion.version}"
    print(f"{uri} has no predictions for these images: evaluating it on them now")
    classifier = Classifier(registry.download(uri, config.tracking), allow_code=True)
    outputs = _evaluate(config.data, classifier, candidate.data, candidate.rows)
    card, own = classifier.card, candidate.answers
    answers = Predictions(
        own.paths, own.labels, classifier.decided(outputs), card.predicts, card.classes, outputs
    )
    return answers, "the champion was evaluated on these now"


def _stored(client: MlflowClient, champion: ModelVersion) -> Predictions | None:
    """Load the predictions stored with its promotion; None if they were removed."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        run = champion.tags["promotion.run"]
        try:
            file = client.download_artifacts(run, predictions.FILE, folder)
            return predictions.read(Path(file))
        except (MlflowException, OSError):
            return None


def _evaluate(
    source: SourceConfig, classifier: Classifier, data: Manifest, rows: Labels
) -> NDArray[np.float32]:
    """Predict (N, K), even if the classifier uses another image size than the prepared one."""
    card = classifier.card
    if (card.image_size, card.decoding) == (data.image_size, data.decoding):
        return classifier.probabilities(data.images, rows, "champion")
    places = {data.rows[row].path: place for place, row in enumerate(rows)}
    probabilities = np.full((len(rows), len(card.classes)), np.nan, np.float32)
    wanted = (image for image in sources.images(source) if image.path in places)
    for chunk in chunks(wanted, _CHUNK):
        decoded = np.stack([classifier.decode(image.read()) for image in chunk])
        probabilities[[places[image.path] for image in chunk]] = classifier.probabilities(decoded)
    if np.isnan(probabilities).any():
        raise InputError("images of the test split are no longer in the source: run dvc repro")
    return probabilities
