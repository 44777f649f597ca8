"""Train the backbone's top layers together with the head, at a lower learning rate.

images.npy + backbone + head.keras -> model.keras, classes.txt, history.csv, summary.json.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import workspace
from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.outputs import file_sha256
from pipeline.training import Training


@dataclass
class Config(Training):
    """Section `finetune`: see also `Training`.

    Attributes:
        cut: Layer from which on the backbone trains: a name, an index as Keras
            counts, or `none` to keep the head-only model.
        batch_norm: `frozen`, or `train` to let BatchNormalization above the cut learn
            and move its statistics.
    """

    learning_rate: float = 1e-4
    epochs: int = 20
    patience: int = 5
    cut: Any = "none"
    batch_norm: str = "frozen"


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: Any,
    batch_size: int,
    prepared: Path,
    head: Path,
    out: Path,
    log: Callable[[dict[str, float], int], None],
) -> dict[str, float]:
    """Fine-tune.

    Args:
        config: Section `finetune`.
        seed: Of order and dropout.
        threads: As TensorFlow was configured with.
        backbone: `Config` of one of `pipeline.backbones`.
        batch_size: Pictures of a forward pass: `extract_features.batch_size`.
        prepared: Output of prepare.
        head: Output of train_head.
        out: Folder to write to; exists and is empty.
        log: Called with the metrics of every epoch.

    Returns:
        Loss and accuracy of the best epoch, trainable and total parameters.

    Raises:
        InputError: The backbone has no such cut, or nothing would be left to train.
    """
    import keras

    from pipeline import backbones, fitting, heads, model_file

    config.check("finetune")
    if config.batch_norm not in ("frozen", "train"):
        raise InputError(f"finetune.batch_norm must be frozen or train, got {config.batch_norm!r}")
    data = Manifest(prepared)
    body = backbones.build(backbone, data.image_size, seed)
    top = keras.saving.load_model(head / "head.keras", compile=False)
    if body.model.output_shape != top.input_shape:
        raise InputError(
            f"the head in {head} takes {top.input_shape[1]} features and {body.name} gives "
            f"{body.model.output_shape[1]}: dvc repro brings the outputs up to date"
        )
    classifier = heads.join(body.model, top, "classifier")
    key = {
        "config": asdict(config),
        "backbone": body.weights_sha256,
        "batch_size": batch_size,
        "seed": seed,
        "threads": threads,
        "images": data.images_sha256,
        "manifest": file_sha256(prepared / "manifest.csv"),
        "head": file_sha256(head / "head.keras"),
    }
    epochs = len(fitting.read_curve(head))
    if config.cut in (None, "none"):
        body.model.trainable = False
        kept = json.loads((head / "summary.json").read_text(encoding="utf-8"))
        fitted = fitting.Fitted([], 0, {name: kept[name] for name in ("val_loss", "val_accuracy")})
    else:
        fitted = _fit_above(config, body, top, data, key, epochs, log)
    card = model_file.Card(data.classes, data.image_size, data.fit, batch_size, threads)
    model_file.save(classifier, out / "model.keras", card)
    (out / "classes.txt").write_text("\n".join(data.classes) + "\n", encoding="utf-8")
    return fitting.report(fitted, classifier, out)


def _fit_above(
    config: Config,
    body: Any,
    top: Any,
    data: Manifest,
    key: dict[str, Any],
    epochs: int,
    log: Callable[[dict[str, float], int], None],
) -> Any:
    """Train everything above the cut on the activations below it."""
    from pipeline import activations, cuts, fitting, heads
    from pipeline.inference import Forward

    batch_norm = config.batch_norm == "train"
    cut = cuts.resolve(body.model, config.cut, batch_norm)
    cuts.freeze(body.model, cut.trainable, batch_norm)
    lower, upper = cuts.split(body.model, cut.at)
    print(f"cut at {cut.at}: {len(cut.trainable)} layers of {body.model.name} train")
    forward = Forward(lower, key["batch_size"])
    parts = ("backbone", "images", "batch_size", "threads")
    store_key = {**{part: key[part] for part in parts}, "cut": cut.at}

    def examples(split: str) -> fitting.Examples:
        rows = data.indices(split)
        inputs = activations.activations(forward, data.images, rows, store_key)
        return fitting.Examples(inputs, fitting.every(inputs), data.labels[rows])

    return fitting.fit(
        heads.join(upper, top, "above_the_cut"),
        examples("train"),
        examples("val"),
        config,
        seed=key["seed"],
        work=workspace.work("finetune", key),
        log=log,
        first_epoch=epochs,
    )
