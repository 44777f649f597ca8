"""Train the backbone's top layers together with the head.

images.npy + backbone + head.keras -> model.keras, classes.txt, history.csv, summary.json.

    python -m pipeline finetune finetune.learning_rate=1e-4
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.manifest import Manifest
from pipeline.features import by_image, scaling, store
from pipeline.features.source import FrozenPart
from pipeline.features.store import Store
from pipeline.finetuning.settings import Config
from pipeline.networks import engines, heads
from pipeline.networks.engines import CHECKED
from pipeline.networks.trust import reference
from pipeline.storage import derived
from pipeline.storage.outputs import Folders

if TYPE_CHECKING:
    from pipeline.training.fitting import Log

__all__ = ["Config", "run"]


def run(
    config: Config, frozen: FrozenPart, activations: store.Config, folders: Folders, log: Log
) -> dict[str, float]:
    """Fine-tune; returns metrics of the best epoch, and numbers of parameters.

    Raises:
        InputError: The backbone has no such cut, or nothing would be left to train.
    """
    from pipeline.data.tasks import calibration
    from pipeline.finetuning.finetuner import Finetuner
    from pipeline.networks import model_file
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import fitting, steps

    cache = Store(activations)
    frozen = scaling.as_extracted(frozen, folders.extract_features)
    with steps.scope(config.replicas):
        body = frozen.build(Manifest(folders.prepare).image_size)
        finetuner = Finetuner(body, folders.prepare, cache, frozen)
        tuned = finetuner.fit(config, folders.train_head, log)
    derived.write(folders.out, tuned.derived)

    data, top = finetuner.data, tuned.head
    if config.calibrate and data.task.calibrates:
        temperature = tuned.fitted.best["temperature"]
        print(f"calibrated with temperature {temperature:g}", flush=True)
        top = calibration.scaled(top, temperature)
    classifier = heads.join(finetuner.model, top, "classifier")
    code = bool(getattr(frozen.backbone, "allow_code", False))
    card = model_file.Card(
        data.classes,
        data.image_size,
        data.decoding,
        frozen.batch_size,
        frozen.threads,
        code,
        task=data.task.name,
    )
    whole = heads.with_features(classifier)
    converted = engines.convert(
        whole,
        frozen.engine,
        threads=frozen.threads,
        images=data.images[data.indices("val")[:CHECKED]],
        parts=[len(data.classes)],  # large features would hide wrong probabilities
    )
    forward = (
        engines.load(converted, frozen.threads)
        if converted
        else KerasForward(whole, frozen.batch_size)
    )
    rows, path = reference.sampled(data, frozen.seed), folders.out / "model.keras"
    every = np.concatenate(rows)
    outputs = forward.all(data.images, every, "reference")
    statistics = reference.gather(outputs, rows, data)
    model_file.save(classifier, path, card, converted, statistics)
    # Stored, so that `add` need not compute the features of the training images.
    named = [data.rows[row].sha256 for row in every]
    by_image.keep(cache, by_image.of_model(path, card), named, outputs.shape[1], iter([outputs]))
    classes = "\n".join(data.classes) + "\n"
    (folders.out / "classes.txt").write_text(classes, encoding="utf-8")
    return fitting.report(tuned.fitted, classifier, folders.out, data.task)
