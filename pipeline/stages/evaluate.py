"""Judge the head-only and the fine-tuned model on the test split.

features.npy + head.keras + model.keras -> metrics.json, intervals.json, comparison.json,
per_class.json, slices.csv, predictions.parquet, predictions.csv, near_duplicates.csv,
label_errors.csv, trust.json, positions.npy, plots.

    python -m pipeline evaluate evaluate.baseline=true
"""

import json
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import predictions
from pipeline.data.manifest import Manifest, Split
from pipeline.errors import InputError
from pipeline.evaluation import (
    facts,
    label_errors,
    metrics,
    near_duplicates,
    resampling,
    slices,
    trust,
)
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.near_duplicates import NearDuplicates
from pipeline.evaluation.resampling import Comparison, Resampled
from pipeline.networks.forward import Forward
from pipeline.networks.trust.judging import Judge
from pipeline.settings import setting
from pipeline.storage.arrays import RowWriter
from pipeline.storage.tables import write_json
from pipeline.training.settings import Training


class Metric(StrEnum):
    """What may count beside accuracy and log loss."""

    macro_f1 = "macro_f1"
    balanced_accuracy = "balanced_accuracy"
    brier = "brier"
    calibration_error = "calibration_error"
    roc_auc = "roc_auc"
    top_5_accuracy = "top_5_accuracy"


@dataclass
class Config:
    """Section `evaluate`. How the baseline is trained is `from_scratch`."""

    split: Split = setting(Split.test, "Which pictures to judge on.")
    near_duplicates: NearDuplicates = setting(
        NearDuplicates.list,
        "Pictures that are nearly the same as one in train or val: list them, or drop them from "
        "what is judged on.",
    )
    draws: int = setting(
        1000, "Of the bootstrap: how often pictures are drawn with replacement.", least=1
    )
    metric: Metric = setting(Metric.macro_f1, "What the verdict says beside accuracy and log loss.")
    label_errors: bool = setting(
        True, "Look through all splits for pictures that are probably mislabelled."
    )
    baseline: bool = setting(
        False,
        "Also train the same network from scratch, on the pictures as they are, to show what "
        "the pre-trained weights are worth.",
    )
    from_scratch: Training = field(default_factory=lambda: Training(epochs=30, patience=5))


def run(
    config: Config,
    *,
    seed: int,
    threads: int,
    backbone: Any,
    unknown: float,
    coverage: float,
    prepared: Path,
    features: Path,
    trained_head: Path,
    finetuned: Path,
    out: Path,
) -> dict[str, float]:
    """Evaluate.

    Args:
        config: Section `evaluate`.
        seed: Of the draws, and of the baseline.
        threads: As TensorFlow was configured with.
        backbone: `Config` of one of `pipeline.networks.backbones`, for the baseline.
        unknown: `serve.unknown`, the share of ordinary pictures that may be called unknown.
        coverage: `serve.coverage`, the share of pictures whose set of labels has the true one.
        prepared: Output of prepare.
        features: Output of extract_features.
        trained_head: Output of train_head.
        finetuned: Output of finetune.
        out: Folder to write to; exists and is empty.

    Returns:
        The metrics of all models, and whether fine-tuning made a difference.
    """
    import keras

    from pipeline.evaluation import baseline, plots
    from pipeline.networks import model_file
    from pipeline.networks.keras_forward import KerasForward
    from pipeline.training import calibration

    data = Manifest(prepared)
    if config.metric == Metric.top_5_accuracy and len(data.classes) <= facts.TOP:
        raise InputError(
            f"evaluate.metric=top_5_accuracy needs more than {facts.TOP} classes, got "
            f"{len(data.classes)}: choose another"
        )
    known = np.load(features / "features.npy", mmap_mode="r")
    rows, alike = _rows(config, data, known, out)
    labels = data.labels[rows]
    path = finetuned / "model.keras"
    model, card = model_file.load(path, allow_code=True)
    forward = model_file.forward(path, card, lambda: model)
    top = keras.saving.load_model(trained_head / "head.keras", compile=False)
    calibrate = any(layer.name == calibration.LAYER for layer in model.layers)
    if calibrate:  # or the two would differ by that alone
        summary = json.loads((trained_head / "summary.json").read_text(encoding="utf-8"))
        top = calibration.scaled(top, summary["temperature"])
    scratch = out / "scratch"  # probabilities may be larger than memory
    scratch.mkdir()
    heads = KerasForward(top, card.batch_size)
    judge = Judge(model_file.known(path), len(data.classes), unknown, coverage)
    models = {"head_only": _judged(heads, known, rows, labels, scratch / "head_only")}
    said = scratch / "fine_tuned"
    relied = trust.judge(forward, judge, len(data.classes), data.images, rows, said)
    models["fine_tuned"] = _gathered(labels, said)
    if config.baseline:
        untrained = baseline.train(
            config.from_scratch,
            backbone,
            keras.saving.load_model(trained_head / "head.keras", compile=False),
            prepared,
            seed=seed,
            threads=threads,
            calibrate=calibrate,
        )
        other = KerasForward(untrained, card.batch_size)
        models["from_scratch"] = _judged(other, data.images, rows, labels, scratch / "from_scratch")
    resampled = {
        name: resampling.resample(one, config.draws, seed, f"bootstrap of {name}")
        for name, one in models.items()
    }
    by_model = {name: one.values for name, one in resampled.items()}
    write_json(out / "metrics.json", by_model)
    spread = {
        name: resampling.as_json(resampling.intervals(one)) for name, one in resampled.items()
    }
    write_json(out / "intervals.json", spread)
    comparisons = _compare(resampled, str(config.metric))
    write_json(out / "comparison.json", {k: _as_json(c) for k, c in comparisons.items()})
    best = models["fine_tuned"]
    assert best.probabilities is not None
    scores = metrics.per_class(labels, best.predicted, data.classes)
    write_json(out / "per_class.json", scores)
    slices.write(out / "slices.csv", data, rows, best, config.draws, seed)
    predictions.write(out, data, rows, best.probabilities, relied)
    np.save(out / trust.POSITIONS, relied.positions.astype(np.float32))
    suspects = (
        label_errors.find(data, known, seed=seed, threads=threads) if config.label_errors else []
    )
    label_errors.write(out / label_errors.FILE, data, suspects)
    trusted = trust.summary(relied, best, unknown, coverage)
    write_json(out / trust.FILE, trusted)
    plots.write(out / "plots", data, rows, models, model, trained_head, finetuned)
    plots.near_duplicates_of(out / "plots", data, alike)
    plots.label_errors(out / "plots", data, suspects)
    plots.neighbours(out / "plots", data, rows, best, known)
    _tell(by_model, comparisons)
    print("\n".join(trust.sentences(trusted)))
    _tell_near_duplicates(config, alike, rows, best.right)
    if suspects:
        told = f"{len(suspects)} of {len(data.rows)} pictures are probably mislabelled"
        print(f"{told} (evaluate/{label_errors.FILE})")
    shutil.rmtree(scratch)
    flat = {
        f"{config.split}_{key}_{name}": value
        for name, values in by_model.items()
        for key, value in values.items()
    }
    gain = comparisons["fine_tuned against head_only"]
    return flat | {
        "fine_tuning_gain_accuracy": gain.differences["accuracy"].value,
        "fine_tuning_p_value": gain.p_value,
    }


def _judged(forward: Forward, inputs: Any, rows: Labels, labels: Labels, scratch: Path) -> Facts:
    """What a model says of some rows; its probabilities stay on disk."""
    with RowWriter(scratch, forward.output_shape, np.float32) as file:
        for batch in forward.batches(inputs, rows, scratch.name):
            file.append(batch)
    return _gathered(labels, scratch)


def _gathered(labels: Labels, scratch: Path) -> Facts:
    return facts.gather(labels, np.load(scratch, mmap_mode="r"), f"facts of {scratch.name}")


def _rows(
    config: Config, data: Manifest, features: NDArray[np.float32], out: Path
) -> tuple[Labels, list[near_duplicates.Pair]]:
    """The pictures to judge on, and those that are nearly the same as one in train or val."""
    rows = data.indices(config.split)
    pairs = near_duplicates.find(data, features, rows)
    dropped = config.near_duplicates == NearDuplicates.drop
    near_duplicates.write(out / near_duplicates.FILE, data, pairs, dropped)
    if not dropped:
        return rows, pairs
    kept = np.setdiff1d(rows, [pair.row for pair in pairs])
    gone = sorted(set(data.labels[rows]) - set(data.labels[kept]))
    if gone:
        raise InputError(
            f"each class needs a picture to judge on, all of {data.classes[gone[0]]!r} are near "
            "duplicates: set evaluate.near_duplicates=list"
        )
    return kept, pairs


def _tell_near_duplicates(
    config: Config, pairs: list[near_duplicates.Pair], rows: Labels, right: NDArray[np.bool_]
) -> None:
    if not pairs:
        return
    told = f"{len(pairs)} pictures are nearly the same as one that training saw"
    if config.near_duplicates == NearDuplicates.drop:
        print(f"{told}: left out")
        return
    other = ~np.isin(rows, [pair.row for pair in pairs])
    without = f": accuracy without them {right[other].mean():.4f}" if other.any() else ""
    print(f"{told} (evaluate/{near_duplicates.FILE}){without}")


def _compare(models: dict[str, Resampled], metric: str) -> dict[str, Comparison]:
    """Fine-tuned against every other model."""
    return {
        f"fine_tuned against {name}": resampling.compare(one, models["fine_tuned"], metric)
        for name, one in models.items()
        if name != "fine_tuned"
    }


def _as_json(one: Comparison) -> dict[str, Any]:
    return {
        "differences": resampling.as_json(one.differences),
        "mcnemar": {
            "only_first_right": one.only_first,
            "only_second_right": one.only_second,
            "p_value": round(one.p_value, 12),
        },
        "verdict": list(one.verdict),
    }


def _tell(found: dict[str, dict[str, float]], comparisons: dict[str, Comparison]) -> None:
    shown = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    for name, values in found.items():
        print(f"{name:12} " + "  ".join(f"{key} {values[key]:.4f}" for key in shown))
    for name, one in comparisons.items():
        print(f"{name}:")
        for sentence in one.verdict:
            print(f"  {sentence}")
