"""Evaluate the head-only and the fine-tuned model on the test split.

features.npy + head.keras + model.keras -> metrics.json, intervals.json, comparison.json,
per_class.json, slices.csv, predictions.parquet, predictions.csv, near_duplicates.csv,
label_errors.csv, trust.json, positions.npy, plots/*.png, vega/.

    python -m pipeline evaluate evaluate.split=val
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import predictions
from pipeline.data.manifest import Manifest, Split
from pipeline.data.predictions import Trust
from pipeline.errors import InputError
from pipeline.evaluation import facts, label_errors, metrics, near_duplicates, resampling, trust
from pipeline.evaluation.facts import Facts, Labels
from pipeline.evaluation.near_duplicates import NearDuplicates, Pair
from pipeline.evaluation.resampling import Comparison, Resampled
from pipeline.networks.forward import Forward
from pipeline.networks.trust.judging import Judge
from pipeline.settings import setting
from pipeline.storage.arrays import RowWriter
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import write_json

if TYPE_CHECKING:
    import keras

_ALWAYS = ("accuracy", "log_loss")
_GAIN = "fine_tuned compared with head_only"


@dataclass
class Config:
    """Section `evaluate`."""

    split: Split = setting(Split.test, "Split to evaluate.")
    near_duplicates: NearDuplicates = setting(
        NearDuplicates.list,
        "Treatment of test images that are nearly the same as one in train or val: list them, or "
        "drop them from the evaluation.",
    )
    metric: str = setting(
        "macro_f1",
        "Metric to report besides accuracy and log loss.",
        advanced=True,
        choices=[name for name in metrics.NAMES if name not in _ALWAYS],
    )
    label_errors: bool = setting(True, "Look for images with wrong labels in all splits.")


def run(
    config: Config, seed: int, threads: int, unknown: float, coverage: float, folders: Folders
) -> dict[str, float]:
    """Evaluate both models.

    Args:
        config: Section `evaluate`.
        seed: Seed for the bootstrap and the search for label errors.
        threads: Number of threads.
        unknown: `serve.unknown`, the fraction of ordinary images that may be flagged as unknown.
        coverage: `serve.coverage`, the fraction of images whose prediction set contains the truth.
        folders: All are read.

    Returns:
        The metrics of both models, and whether fine-tuning made a difference.
    """
    from pipeline.evaluation import plots
    from pipeline.training import curves

    data, out = Manifest(folders.prepare), folders.out
    _check(config, data)
    features = np.load(folders.extract_features / "features.npy", mmap_mode="r")
    rows, pairs = _rows(config, data, features)
    with tempfile.TemporaryDirectory(dir=out) as scratch:  # probabilities may exceed memory
        run_models = _Models(data, rows, folders, Path(scratch))
        models, reliability = run_models(unknown, coverage)
        best = models["fine_tuned"]
        assert best.probabilities is not None
        resampled = {
            name: resampling.resample(facts_of, seed, f"bootstrap of {name}")
            for name, facts_of in models.items()
        }
        gain = resampling.compare(resampled["head_only"], resampled["fine_tuned"], config.metric)
        suspects = _suspects(config, data, features, seed, threads)
        suspects = label_errors.doubted(suspects, data, run_models.probabilities)
        _write_metrics(out, resampled, gain)
        write_json(
            out / "per_class.json", metrics.per_class(best.labels, best.predicted, data.classes)
        )
        resampling.write_slices(out / "slices.csv", data, rows, best, seed)
        predictions.write(out, data, rows, best.probabilities, reliability)
        np.save(out / trust.POSITIONS, reliability.positions.astype(np.float32))
        dropped = config.near_duplicates == NearDuplicates.drop
        near_duplicates.write(out / near_duplicates.FILE, data, pairs, dropped)
        label_errors.write(out / label_errors.FILE, data, suspects)
        measured = trust.summary(reliability, best, unknown, coverage)
        write_json(out / trust.FILE, measured)
        evaluation = plots.Evaluation(
            data,
            rows,
            features,
            models,
            best.probabilities,
            run_models.classifier,
            curves.read(folders.train_head),
            curves.read(folders.finetune),
            pairs,
            suspects,
        )
        plots.write(out / "plots", evaluation)
        plots.write_data(out / "vega", evaluation)
    _print_metrics(resampled, gain)
    print("\n".join(trust.sentences(measured)))
    _print_near_duplicates(dropped, pairs, rows, best.right)
    if suspects:
        print(
            f"{len(suspects)} of {len(data.rows)} images have suspicious labels (in benchmarks, at "
            f"least half of such suspects were wrong): evaluate/{label_errors.FILE}"
        )
    return _flat(str(config.split), resampled, gain)


def _check(config: Config, data: Manifest) -> None:
    metric = metrics.METRICS.get(config.metric)
    if metric and len(data.classes) < metric.min_classes:
        raise InputError(
            f"evaluate.metric={config.metric} needs at least {metric.min_classes} classes, got "
            f"{len(data.classes)}: choose another metric"
        )


class _Models:
    """The head-only and the fine-tuned model, run on the evaluated images."""

    def __init__(self, data: Manifest, rows: Labels, folders: Folders, scratch: Path) -> None:
        from pipeline.networks import model_file

        self._data, self._rows, self._folders, self._scratch = data, rows, folders, scratch
        self._labels = data.labels[rows]
        self._path = folders.finetune / "model.keras"
        self.classifier, self._card = model_file.load(self._path, allow_code=True)

    def __call__(self, unknown: float, coverage: float) -> tuple[dict[str, Facts], Trust]:
        """Return facts about both models, and the reliability of the fine-tuned one's answers."""
        from pipeline.networks import model_file
        from pipeline.networks.keras_forward import KerasForward

        features = np.load(self._folders.extract_features / "features.npy", mmap_mode="r")
        head = KerasForward(self._head(), self._card.batch_size)
        head_only = self._run(head, features, self._scratch / "head_only")
        forward = model_file.forward(self._path, self._card, lambda: self.classifier)
        classes, path = len(self._data.classes), self._scratch / "fine_tuned"
        judge = Judge(model_file.reference_of(self._path), classes, unknown, coverage)
        reliability = trust.judge(forward, judge, classes, self._data.images, self._rows, path)
        return {"head_only": head_only, "fine_tuned": self._facts(path)}, reliability

    def probabilities(self, rows: Labels) -> NDArray[np.float32]:
        """Return the fine-tuned model's probabilities for rows of the dataset: (M, K)."""
        from pipeline.networks import model_file

        forward = model_file.forward(self._path, self._card, lambda: self.classifier)
        outputs = forward.all(self._data.images, rows, "suspects")
        return outputs[:, : len(self._data.classes)]

    def _head(self) -> keras.Model:
        """Load the trained head, calibrated if the fine-tuned model is, so that both compare."""
        import keras

        from pipeline.training import calibration

        folder = self._folders.train_head
        head: keras.Model = keras.saving.load_model(folder / "head.keras", compile=False)
        if any(layer.name == calibration.LAYER for layer in self.classifier.layers):
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            return calibration.scaled(head, summary["temperature"])
        return head

    def _run(self, forward: Forward, inputs: Any, path: Path) -> Facts:
        with RowWriter(path, forward.output_shape, np.float32) as file:
            for batch in forward.batches(inputs, self._rows, path.name):
                file.append(batch)
        return self._facts(path)

    def _facts(self, path: Path) -> Facts:
        probabilities = np.load(path, mmap_mode="r")
        return facts.gather(self._labels, probabilities, f"facts of {path.name}")


def _rows(
    config: Config, data: Manifest, features: NDArray[np.float32]
) -> tuple[Labels, list[Pair]]:
    """Return the images to evaluate, and those nearly the same as one in train or val."""
    rows = data.indices(config.split)
    pairs = near_duplicates.find(data, features, rows)
    if config.near_duplicates == NearDuplicates.list:
        return rows, pairs
    others = np.setdiff1d(rows, [pair.row for pair in pairs])
    gone = sorted(set(data.labels[rows]) - set(data.labels[others]))
    if gone:
        raise InputError(
            f"every test image of class {data.classes[gone[0]]!r} is a near duplicate: set "
            "evaluate.near_duplicates=list"
        )
    return others, pairs


def _suspects(
    config: Config, data: Manifest, features: NDArray[np.float32], seed: int, threads: int
) -> list[label_errors.Suspect]:
    if not config.label_errors:
        return []
    return label_errors.find(data, features, seed=seed, threads=threads)


def _write_metrics(out: Path, resampled: Mapping[str, Resampled], gain: Comparison) -> None:
    write_json(out / "metrics.json", {name: r.values for name, r in resampled.items()})
    spread = {name: resampling.intervals(r) for name, r in resampled.items()}
    as_json = {name: resampling.as_json(values) for name, values in spread.items()}
    write_json(out / "intervals.json", as_json)
    mcnemar = {
        "only_first_right": gain.only_first,
        "only_second_right": gain.only_second,
        "p_value": round(gain.p_value, 12),
    }
    compared = {
        "differences": resampling.as_json(gain.differences),
        "mcnemar": mcnemar,
        "verdict": list(gain.verdict),
    }
    write_json(out / "comparison.json", {_GAIN: compared})


def _print_metrics(resampled: Mapping[str, Resampled], gain: Comparison) -> None:
    names = ("accuracy", "macro_f1", "log_loss", "calibration_error")
    for model, result in resampled.items():
        print(f"{model:12} " + "  ".join(f"{name} {result.values[name]:.4f}" for name in names))
    print(f"{_GAIN}:")
    for sentence in gain.verdict:
        print(f"  {sentence}")


def _print_near_duplicates(
    dropped: bool, pairs: list[Pair], rows: Labels, right: NDArray[np.bool_]
) -> None:
    if not pairs:
        return
    text = f"{len(pairs)} test images are nearly the same as a training image"
    if dropped:
        print(f"{text}: dropped")
        return
    other = ~np.isin(rows, [pair.row for pair in pairs])
    without = f": accuracy without them {right[other].mean():.4f}" if other.any() else ""
    print(f"{text} (evaluate/{near_duplicates.FILE}){without}")


def _flat(split: str, resampled: Mapping[str, Resampled], gain: Comparison) -> dict[str, float]:
    """Name the metrics for the tracker."""
    flat = {
        f"{split}_{metric}_{model}": value
        for model, result in resampled.items()
        for metric, value in result.values.items()
    }
    return flat | {
        "fine_tuning_gain_accuracy": gain.differences["accuracy"].value,
        "fine_tuning_p_value": gain.p_value,
    }
