"""Evaluate the head-only and the fine-tuned model on the test split.

features.npy + head.keras + model.keras -> metrics.json, intervals.json, comparison.json,
per_class.json, slices.csv, predictions.parquet, predictions.csv, near_duplicates.csv,
label_errors.csv, label_curve.json, trust.json, positions.npy, plots/*.png, vega/.

    python -m pipeline evaluate evaluate.split=val
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.data import predictions, tasks
from pipeline.data.manifest import CALIBRATION, Manifest, Split
from pipeline.data.predictions import Trust
from pipeline.data.tasks import Facts, Outputs, Task
from pipeline.data.tasks.facts import Labels
from pipeline.errors import InputError
from pipeline.evaluation import label_curve, label_errors, near_duplicates, resampling, trust
from pipeline.evaluation.near_duplicates import NearDuplicates, Pair
from pipeline.evaluation.resampling import Comparison, Resampled
from pipeline.networks.trust.judging import Judge
from pipeline.settings import AUTO, is_auto, setting
from pipeline.storage.arrays import row_writer
from pipeline.storage.outputs import Folders
from pipeline.storage.tables import read_json, write_json

if TYPE_CHECKING:
    import keras

_GAIN = "fine_tuned compared with head_only"
_OVER_CONSTANT = "fine_tuned compared with constant"
_MAX_VAL = 5000
"""Maximum number of validation images that decide the head's thresholds."""
_LAST = ("calibration_error",)


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
        AUTO,
        "Metric to report besides those that are always reported, such as accuracy and log loss; "
        "`auto` is macro_f1, or for numbers root_mean_squared_error.",
        advanced=True,
        choices=[AUTO, *tasks.reported()],
    )
    label_errors: bool = setting(True, "Look for images with wrong labels in all splits.")


def run(
    config: Config, seed: int, threads: int, unknown: float, coverage: float, folders: Folders
) -> dict[str, float]:
    """Evaluate both models; `unknown` and `coverage` are those of section `serve`."""
    from pipeline.evaluation import plots
    from pipeline.storage import curves

    data, out = Manifest(folders.prepare), folders.out
    task, metric = data.task, _metric(config, data)
    features = np.load(folders.extract_features / "features.npy", mmap_mode="r")
    rows, pairs = _rows(config, data, features)
    with tempfile.TemporaryDirectory(dir=out) as scratch:  # probabilities may exceed memory
        run_models = _Models(data, rows, folders, Path(scratch))
        models, reliability = run_models(unknown, coverage)
        best = models["fine_tuned"]
        resampled = {
            name: resampling.resample(facts_of, seed, f"bootstrap of {name}")
            for name, facts_of in models.items()
        }
        names = tuple(dict.fromkeys((*task.headline, metric)))
        compared = {
            title: resampling.compare(resampled[other], resampled["fine_tuned"], names)
            for title, other in ((_GAIN, "head_only"), (_OVER_CONSTANT, "constant"))
            if other in resampled
        }
        suspects = label_errors.find(data, features, seed, threads) if config.label_errors else []
        suspects = label_errors.doubted(suspects, data, run_models.outputs)
        _write_metrics(out, resampled, compared)
        scores = best.scores(data.classes)
        write_json(out / "per_class.json", scores)
        weakest = sorted(scores, key=lambda name: scores[name]["recall"])
        curve = label_curve.measure(data, features, rows, weakest, seed, threads)
        write_json(out / label_curve.FILE, curve)
        resampling.write_slices(out / "slices.csv", data, rows, best, seed)
        predictions.write(out, data, rows, run_models.answered, reliability)
        np.save(out / trust.POSITIONS, reliability.positions.astype(np.float32))
        dropped = config.near_duplicates == NearDuplicates.drop
        near_duplicates.write(out / near_duplicates.FILE, data, pairs, dropped)
        label_errors.write(out / label_errors.FILE, data, suspects)
        measured = trust.summary(reliability, best, task, data.targets[rows], unknown, coverage)
        write_json(out / trust.FILE, measured)
        evaluation = plots.Evaluation(
            data,
            rows,
            features,
            models,
            reliability.decided,
            run_models.classifier,
            curves.read(folders.train_head),
            curves.read(folders.finetune),
            curve,
            pairs,
            suspects,
        )
        plots.write(out / "plots", evaluation)
        plots.write_data(out / "vega", evaluation)
    _print_metrics(resampled, compared, names)
    print("\n".join(trust.sentences(measured, task)))
    if reliability.regions is None and len(data.indices(CALIBRATION)):
        print(f"no {' or '.join(task.region)} in answers: {run_models.lacks}")
    if pairs:
        split = str(config.split)
        print(near_duplicates.sentence(split, dropped, pairs, rows, best.wrong, task))
    for sentence in label_curve.sentences(curve, task):
        print(sentence)
    if suspects:
        print(
            f"{len(suspects)} of {len(data.rows)} images have suspicious labels (in benchmarks, at "
            f"least half of such suspects were wrong): evaluate/{label_errors.FILE}"
        )
    return _flat(str(config.split), resampled, compared[_GAIN], task)


def _metric(config: Config, data: Manifest) -> str:
    """Return the metric to report besides the usual ones."""
    task = data.task
    chosen = task.further[0] if is_auto(config.metric) else config.metric
    names = (*task.headline, *task.metrics(len(data.classes)))
    if chosen not in names:
        raise InputError(
            f"evaluate.metric must be auto or one of {', '.join(names)} for {task.noun}, got "
            f"{config.metric!r}"
        )
    return chosen


class _Models:
    """The head-only and the fine-tuned model, run on the evaluated images.

    Attributes:
        classifier: The fine-tuned model.
        answered: (N, K) its outputs, memory-mapped.
        lacks: What is missing for regions in answers.
    """

    def __init__(self, data: Manifest, rows: Labels, folders: Folders, scratch: Path) -> None:
        from pipeline.networks import model_file

        self._data, self._rows, self._folders, self._scratch = data, rows, folders, scratch
        path = folders.finetune / "model.keras"
        self.classifier, card = model_file.load(path, allow_code=True)
        self._forward = model_file.forward(path, card, lambda: self.classifier)
        self._batch_size, self._reference = card.batch_size, model_file.reference_of(path)

    def __call__(self, unknown: float, coverage: float) -> tuple[dict[str, Facts], Trust]:
        """Return facts about both models, and the reliability of the fine-tuned one's answers."""
        from pipeline.networks.keras_forward import KerasForward

        data, task = self._data, self._data.task
        features = np.load(self._folders.extract_features / "features.npy", mmap_mode="r")
        head = KerasForward(self._head(), self._batch_size)
        val = data.indices("val")[:_MAX_VAL]
        thresholds = task.thresholds(data.targets[val], head.all(features, val))
        path = self._scratch / "head_only"
        with row_writer(path, head.output_shape, np.float32) as append:
            for batch in head.batches(features, self._rows, path.name):
                append(batch)
        outputs = np.load(path, mmap_mode="r")
        models = {path.name: self._facts(outputs, task.decided(outputs, thresholds, data.classes))}
        path = self._scratch / "fine_tuned"
        judge = Judge(self._reference, task, data.classes, unknown, coverage)
        self.lacks = judge.lacks
        width = len(data.classes)
        reliability = trust.judge(self._forward, judge, width, data.images, self._rows, path)
        self.answered = np.load(path, mmap_mode="r")
        models[path.name] = self._facts(self.answered, reliability.decided)
        constant = task.constant(data.targets[data.indices("train")], len(self._rows))
        if constant is not None:
            models["constant"] = task.facts(data.targets[self._rows], constant)
        return models, reliability

    def _facts(self, outputs: Outputs, decided: list[str]) -> Facts:
        task, classes = self._data.task, self._data.classes
        targets = self._data.targets[self._rows]
        return task.facts(targets, outputs, task.targets(decided, classes), "facts")

    def outputs(self, rows: Labels) -> Outputs:
        """Return the fine-tuned model's outputs for rows of the dataset: (M, K)."""
        outputs = self._forward.all(self._data.images, rows, "suspects")
        return outputs[:, : len(self._data.classes)]

    def _head(self) -> keras.Model:
        """Load the trained head, calibrated if the fine-tuned model is, so that both compare."""
        import keras

        from pipeline.data.tasks import calibration

        folder = self._folders.train_head
        head: keras.Model = keras.saving.load_model(folder / "head.keras", compile=False)
        if any(layer.name == calibration.LAYER for layer in self.classifier.layers):
            summary = read_json(folder / "summary.json")
            return calibration.scaled(head, summary["temperature"])
        return head


def _rows(
    config: Config, data: Manifest, features: NDArray[np.float32]
) -> tuple[Labels, list[Pair]]:
    """Return the images to evaluate, and those nearly the same as one in train or val."""
    rows = data.indices(config.split)
    pairs = near_duplicates.find(data, features, rows)
    if config.near_duplicates == NearDuplicates.list:
        return rows, pairs
    others = np.setdiff1d(rows, [pair.row for pair in pairs])
    before, after = (
        {name for row in part for name in data.task.names(data.rows[row].label)}
        for part in (rows, others)
    )
    if before - after or not len(others):
        which = f" of class {min(before - after)!r}" if before - after else ""
        raise InputError(
            f"every {config.split} image{which} is a near duplicate: set "
            "evaluate.near_duplicates=list"
        )
    return others, pairs


def _write_metrics(
    out: Path, resampled: Mapping[str, Resampled], compared: Mapping[str, Comparison]
) -> None:
    write_json(out / "metrics.json", {name: r.values for name, r in resampled.items()})
    spread = {name: resampling.intervals(r) for name, r in resampled.items()}
    as_json = {name: resampling.as_json(values) for name, values in spread.items()}
    write_json(out / "intervals.json", as_json)
    described = {
        title: {
            "differences": resampling.as_json(gain.differences),
            "mcnemar": {
                "only_first_right": gain.only_first,
                "only_second_right": gain.only_second,
                "p_value": round(gain.p_value, 12),
            },
            "verdict": list(gain.verdict),
        }
        for title, gain in compared.items()
    }
    write_json(out / "comparison.json", described)


def _print_metrics(
    resampled: Mapping[str, Resampled], compared: Mapping[str, Comparison], names: Sequence[str]
) -> None:
    first, *others = names
    for model, result in resampled.items():
        listed = (first, others[-1], *others[:-1], *(n for n in _LAST if n in result.values))
        values = [f"{name} {tasks.digits(result.values[name])}" for name in listed]
        print(f"{model:12} " + "  ".join(values))
    for title, gain in compared.items():
        print(f"{title}:")
        for sentence in gain.verdict:
            print(f"  {sentence}")


def _flat(
    split: str, resampled: Mapping[str, Resampled], gain: Comparison, task: Task
) -> dict[str, float]:
    """Name the metrics for the tracker."""
    flat = {
        f"{split}_{metric}_{model}": value
        for model, result in resampled.items()
        for metric, value in result.values.items()
    }
    return flat | {
        f"fine_tuning_gain_{task.headline[0]}": gain.differences[task.headline[0]].value,
        "fine_tuning_p_value": gain.p_value,
    }
