"""Train the backbone's top layers together with the head, at a lower learning rate.

images.npy + backbone + head.keras -> model.keras, classes.txt, history.csv, summary.json.

    python -m pipeline finetune finetune.learning_rate=1e-4
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.cluster.settings import Config as Cluster
from pipeline.features import augmentation
from pipeline.features.store import Config as StoreConfig
from pipeline.features.store import Store
from pipeline.finetuning.finetuner import Finetuner
from pipeline.finetuning.settings import Config
from pipeline.networks import engines
from pipeline.networks.engines import CHECKED
from pipeline.storage import derived

__all__ = ["Config", "run"]


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: Any,
    batch_size: int,
    augment: augmentation.Config,
    forward: engines.Config,
    cluster: Cluster,
    activations: StoreConfig,
    prepared: Path,
    trained_head: Path,
    out: Path,
    log: Callable[[dict[str, float], int], None],
) -> dict[str, float]:
    """Fine-tune.

    Args:
        config: Section `finetune`.
        seed: Of order, dropout and views.
        threads: As TensorFlow was configured with.
        backbone: `Config` of one of `pipeline.networks.backbones`.
        batch_size: Pictures of a forward pass: `extract_features.batch_size`.
        augment: Section `augment`.
        forward: Section `forward`.
        cluster: Section `cluster`.
        activations: Section `activations`.
        prepared: Output of prepare.
        trained_head: Output of train_head.
        out: Folder to write to; exists and is empty.
        log: Called with the metrics of every epoch.

    Returns:
        Loss and accuracy of the best epoch, trainable and total parameters.

    Raises:
        InputError: The backbone has no such cut, or nothing would be left to train.
    """
    from pipeline.data.manifest import Manifest
    from pipeline.finetuning import reference
    from pipeline.networks import backbones, heads, model_file
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import calibration, fitting, replicas

    with replicas.scope(config.replicas):
        body = backbones.build(backbone, Manifest(prepared).image_size, seed)
        finetuner = Finetuner(
            body,
            prepared,
            Store(activations),
            augment,
            engine=forward,
            cluster=cluster,
            batch_size=batch_size,
            seed=seed,
            threads=threads,
        )
        tuned = finetuner.fit(config, trained_head, log)
    derived.write(out, tuned.derived)
    data, top = finetuner.data, tuned.head
    classifier = heads.join(body.model, top, "classifier")
    if config.calibrate:
        temperature = tuned.fitted.best["temperature"]
        print(f"temperature {temperature:g}", flush=True)
        classifier = heads.join(body.model, calibration.scaled(top, temperature), "classifier")
    code = bool(getattr(backbone, "allow_code", False))
    card = model_file.Card(data.classes, data.image_size, data.decoding, batch_size, threads, code)
    shown = data.images[data.indices("val")[:CHECKED]]
    whole = heads.with_features(classifier)
    # Features are large, and would hide that probabilities are wrong.
    apart = [len(data.classes)]
    converted = engines.convert(whole, forward, threads=threads, pictures=shown, parts=apart)
    passes = engines.load(converted, threads) if converted else KerasForward(whole, batch_size)
    known = reference.gather(passes, data, seed)
    model_file.save(classifier, out / "model.keras", card, converted, known)
    (out / "classes.txt").write_text("\n".join(data.classes) + "\n", encoding="utf-8")
    return fitting.report(tuned.fitted, classifier, out)
