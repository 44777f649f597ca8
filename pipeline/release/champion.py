"""The champion's answers to the candidate's images, known from its promotion or computed now."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.evaluation.facts import Labels
from pipeline.intake import sources
from pipeline.intake.sources import SourceConfig
from pipeline.release import registry
from pipeline.release.candidate import Answers, Candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from pipeline.serving.classifier import Classifier

_CHUNK = 256


def answers(
    config: Config, client: MlflowClient, champion: ModelVersion, candidate: Candidate
) -> tuple[Answers, str]:
    """What the champion says of the candidate's images, and in words how that is known.

    Args:
        config: The whole config.
        client: Of the tracking store.
        champion: Its version in the registry.
        candidate: Whose images.

    Raises:
        InputError: The champion or the images cannot be read.
    """
    same = champion.tags.get("split.sha256") == candidate.split_sha256
    if same and (kept := _kept(client, champion)):
        return kept, "the champion's answers are kept with it"
    from pipeline.serving.classifier import Classifier

    uri = f"models:/{champion.name}/{champion.version}"
    print(f"{uri} has no answers to these images: it is evaluated on them now")
    classifier = Classifier(registry.download(uri, config.tracking), allow_code=True)
    answers = _evaluate(config.data, classifier, candidate.data, candidate.rows)
    return Answers(classifier.card.classes, answers), "the champion was evaluated anew on these"


def _kept(client: MlflowClient, champion: ModelVersion) -> Answers | None:
    """The answers that its promotion kept; None if somebody has removed them."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        run = champion.tags["promotion.run"]
        try:
            file = client.download_artifacts(run, predictions.FILE, folder)
            kept = predictions.read(Path(file))
        except (MlflowException, OSError):
            return None
    return Answers(kept.classes, kept.probabilities)


def _evaluate(
    source: SourceConfig, classifier: Classifier, data: Manifest, rows: Labels
) -> NDArray[np.float32]:
    """(N, K) of a classifier whose images may be of another size than the prepared ones."""
    card = classifier.card
    if (card.image_size, card.decoding) == (data.image_size, data.decoding):
        return classifier.probabilities(data.images, rows, "champion")
    places = {data.rows[row].path: place for place, row in enumerate(rows)}
    probabilities = np.full((len(rows), len(card.classes)), np.nan, np.float32)
    wanted = (one for one in sources.images(source) if one.path in places)
    for chunk in _chunks(wanted):
        decoded = np.stack([classifier.decode(one.read()) for one in chunk])
        probabilities[[places[one.path] for one in chunk]] = classifier.probabilities(decoded)
    if np.isnan(probabilities).any():
        raise InputError("images of the test split are no longer in the source: run dvc repro")
    return probabilities


def _chunks(images: Iterable[sources.Sample]) -> Iterable[list[sources.Sample]]:
    chunk: list[sources.Sample] = []
    for one in images:
        chunk.append(one)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
