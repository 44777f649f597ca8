"""The candidate that `add` makes: a model file, and its answers for test images.

head + trained classifier -> outputs/added, in the form of a prepared dataset with its predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.data import manifest, predictions
from pipeline.data.image_file import Pixels
from pipeline.data.manifest import CALIBRATION, Manifest, Row
from pipeline.data.predictions import Predictions
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample
from pipeline.networks import engines, heads, model_file
from pipeline.networks.trust import reference
from pipeline.networks.trust.judging import Judge
from pipeline.networks.trust.reference import Reference
from pipeline.release.candidate import ADDED
from pipeline.serving.classifier import MODEL
from pipeline.storage import outputs
from pipeline.storage.digests import file_md5
from pipeline.storage.outputs import ROOT
from pipeline.storage.tables import read_json, write_json
from pipeline.teaching.addition import Base, Head, Part

if TYPE_CHECKING:
    import keras


def write(
    base: Base, head: Head, old: Part, new: Part, files: Mapping[str, Sample], config: Config
) -> tuple[Predictions, Reference]:
    """Write everything that predict, serve and promote need.

    Returns:
        Answers for test images, and the new classifier's reference data.
    """
    split = str(config.evaluate.split)
    with outputs.locked(ADDED), outputs.replacing(ADDED) as folder:
        _write_images(base, old.of(split).rows, new.of(split).rows, files, folder)
        classes = "\n".join(head.classes) + "\n"
        (folder / "classes.txt").write_text(classes, encoding="utf-8")
        prepared = read_json(ROOT / "prepare/summary.json")
        write_json(folder / "summary.json", {**prepared, "added_to": file_md5(MODEL)})
        data, made = Manifest(folder), _reference(base, head, old + new)
        serve = config.serve
        judge_of = Judge(made, head.task, head.classes, serve.unknown, serve.coverage)
        answers = judge_of(head.outputs(old.of(split) + new.of(split)))
        rows = np.arange(len(data.rows))
        predictions.write(folder, data, rows, answers.probabilities, answers)
        values = predictions.read(folder / predictions.FILE)
        write_json(folder / "metrics.json", {"fine_tuned": values.facts().values()})
        _write_model(base, head, made, config, data.images, folder)
    return values, made


def _reference(base: Base, head: Head, whole: Part) -> Reference:
    """Make the reference data of the new classifier; traits are those of the old one."""
    parts = [whole.of(split) for split in ("train", "val", CALIBRATION)]
    targets = head.targets(parts[1]), head.targets(parts[2])
    answers = [head.outputs(part) for part in parts]
    return reference.make(head.task, answers, targets, len(head.classes), base.reference.traits)


def _write_images(
    base: Base, old: list[Row], new: list[Row], files: Mapping[str, Sample], folder: Path
) -> None:
    """Write manifest and pixels of the test images."""
    places = {row.path: place for place, row in enumerate(base.data.rows)}
    size, how = base.card.image_size, base.card.decoding
    judged = judge([files[row.sha256] for row in new], size, how, "test images")
    decoded = [verdict.pixels for _, verdict in judged if not isinstance(verdict, str)]
    kept = [base.data.images[places[row.path]] for row in old]
    manifest.write_rows(folder / "manifest.csv", [replace(row, extra={}) for row in (*old, *new)])
    np.save(folder / "images.npy", np.stack([*kept, *decoded]))


def _write_model(
    base: Base, head: Head, made: Reference, config: Config, images: Pixels, folder: Path
) -> None:
    """Write the classifier with its new head."""
    model, card = base.model, base.card  # sets up TensorFlow, which the next line imports
    import keras

    body = keras.Model(model.inputs[0], heads.features(model))
    weights: list[NDArray[Any]] = [head.linear[0], head.linear[1]]
    top = heads.build(
        heads.Config(use="logistic"), len(weights[0]), len(head.classes), head.task, head.fitted
    )
    top.set_weights(weights)
    classifier: keras.Model = heads.join(body, top, "classifier")
    converted = engines.convert(
        heads.with_features(classifier),
        config.forward,
        threads=card.threads,
        images=images[: engines.CHECKED],
        parts=[len(head.classes)],
    )
    card = replace(card, classes=head.classes, engine=None)
    model_file.save(classifier, folder / "model.keras", card, converted, made)
