"""Train the backbone's top layers together with the head, at a lower learning rate.

images.npy + backbone + head.keras -> model.keras, classes.txt, history.csv, summary.json.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline import activations, curves, workspace
from pipeline.activations import Source, Store
from pipeline.caching import Cache, Decision, decide
from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.outputs import file_sha256
from pipeline.training import Training


@dataclass
class Config(Training):
    """Section `finetune`: see also `Training`.

    Attributes:
        cut: Layer from which on the backbone trains: a name, an index as Keras
            counts, {blocks: N} for the last N blocks, or `none` to keep the head-only model.
        batch_norm: `frozen`, or `train` to let BatchNormalization above the cut learn
            and move its statistics.
        cache: Whether the activations below the cut are computed once and kept: `auto`
            decides by disk and time, `always`, or `never`.
    """

    learning_rate: float = 1e-4
    epochs: int = 20
    patience: int = 5
    cut: Any = "none"
    batch_norm: str = "frozen"
    cache: Cache = Cache.auto


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: Any,
    batch_size: int,
    cache: activations.Config,
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
        cache: Section `activations`.
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
    epochs = len(curves.read(head))
    if config.cut in (None, "none"):
        body.model.trainable = False
        kept = json.loads((head / "summary.json").read_text(encoding="utf-8"))
        fitted = fitting.Fitted([], 0, {name: kept[name] for name in ("val_loss", "val_accuracy")})
    else:
        source = Source(
            model=body.model,
            images=data.images,
            batch_size=batch_size,
            threads=threads,
            backbone_sha256=body.weights_sha256,
            images_sha256=data.images_sha256,
        )
        fitted = _fit_above(config, Store(cache), source, top, data, key, epochs, log)
    card = model_file.Card(data.classes, data.image_size, data.fit, batch_size, threads)
    model_file.save(classifier, out / "model.keras", card)
    (out / "classes.txt").write_text("\n".join(data.classes) + "\n", encoding="utf-8")
    return fitting.report(fitted, classifier, out)


def _fit_above(
    config: Config,
    store: Store,
    source: Source,
    top: Any,
    data: Manifest,
    key: dict[str, Any],
    epochs: int,
    log: Callable[[dict[str, float], int], None],
) -> Any:
    """Train everything above the cut, on cached activations where that pays."""
    from pipeline import cuts, fitting, heads
    from pipeline.frozen import FrozenBelow

    batch_norm = config.batch_norm == "train"
    cut = cuts.resolve(source.model, config.cut, batch_norm)
    cuts.freeze(source.model, cut.trainable, batch_norm)
    lower, upper = cuts.split(source.model, cut.at)
    rows = {split: data.indices(split) for split in ("train", "val")}
    decision = _decide(config, store, source, cut.at, sum(map(len, rows.values())))
    print(f"cut at {cut.at}: {len(cut.trainable)} layers of {source.model.name} train")
    print(f"activations below it are {'' if decision.cached else 'not '}cached: {decision.why}")

    def examples(split: str) -> fitting.Examples:
        if not decision.cached:
            return fitting.Examples(data.images, rows[split], data.labels[rows[split]])
        inputs = activations.below(store, source, cut.at, rows[split])
        return fitting.Examples(inputs, np.arange(len(inputs)), data.labels[rows[split]])

    trained = heads.join(upper, top, "above_the_cut")
    return fitting.fit(
        trained if decision.cached else FrozenBelow(lower, trained),
        examples("train"),
        examples("val"),
        config,
        seed=key["seed"],
        work=workspace.work("finetune", {**key, "cached": decision.cached}),
        log=log,
        first_epoch=epochs,
    )


def _decide(config: Config, store: Store, source: Source, at: str, pictures: int) -> Decision:
    from pipeline import cuts

    (point,) = [point for point in cuts.describe(source.model) if point.name == at]
    store.root.mkdir(parents=True, exist_ok=True)
    return decide(
        config.cache,
        needed_bytes=pictures * point.bytes_a_picture,
        free_bytes=shutil.disk_usage(store.root).free,
        max_bytes=store.max_bytes,
        memory_bytes=psutil.virtual_memory().available,
        flops_below=point.flops_below,
        epochs=config.epochs,
    )
