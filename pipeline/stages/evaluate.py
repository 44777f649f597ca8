"""Judge the head-only and the fine-tuned model on the test split.

features.npy + head.keras + model.keras -> metrics.json, predictions.csv, plots.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import curves, manifest
from pipeline.errors import InputError
from pipeline.manifest import Manifest
from pipeline.outputs import write_json


@dataclass
class Config:
    """Section `evaluate`.

    Attributes:
        split: Which pictures to judge on.
    """

    split: str = "test"


def run(
    config: Config, *, prepared: Path, features: Path, head: Path, finetuned: Path, out: Path
) -> dict[str, float]:
    """Evaluate.

    Args:
        config: Section `evaluate`.
        prepared: Output of prepare.
        features: Output of extract_features.
        head: Output of train_head.
        finetuned: Output of finetune.
        out: Folder to write to; exists and is empty.

    Returns:
        Accuracy, macro-F1 and log loss of both models.
    """
    import keras

    from pipeline import metrics, model_file
    from pipeline.inference import Forward

    if config.split not in manifest.SPLITS:
        raise InputError(f"evaluate.split must be train, val or test, got {config.split!r}")
    data = Manifest(prepared)
    rows = data.indices(config.split)
    labels = data.labels[rows]
    model, card = model_file.load(finetuned / "model.keras")
    top = keras.saving.load_model(head / "head.keras", compile=False)
    known = np.load(features / "features.npy", mmap_mode="r")
    probabilities = {
        "head_only": Forward(top, card.batch_size).all(known, rows),
        "fine_tuned": Forward(model, card.batch_size).all(data.images, rows, "evaluate"),
    }
    found = {name: metrics.summary(labels, values) for name, values in probabilities.items()}
    best = probabilities["fine_tuned"]
    write_json(out / "metrics.json", found)
    write_json(out / "per_class.json", metrics.per_class(labels, best, data.classes))
    _write_predictions(out / "predictions.csv", data, rows, best)
    _write_plots(out / "plots", data, labels, best, head, finetuned)
    for name, values in found.items():
        print(f"{name:10} " + "  ".join(f"{key} {value:.4f}" for key, value in values.items()))
    return {
        f"{config.split}_{key}_{name}": value
        for name, values in found.items()
        for key, value in values.items()
    }


def _write_predictions(path: Path, data: Manifest, rows: Any, probabilities: Any) -> None:
    """One line a picture; probabilities in full, so that they can be compared exactly."""
    lines = []
    for row, values in zip(rows, probabilities, strict=True):
        picture = data.rows[row]
        predicted = data.classes[int(values.argmax())]
        lines.append([picture.path, picture.label, predicted, *map(str, values)])
    manifest.write_table(path, ["path", "label", "predicted", *data.classes], lines)


def _write_plots(
    folder: Path, data: Manifest, labels: Any, probabilities: Any, head: Path, finetuned: Path
) -> None:
    from pipeline import figures, metrics

    folder.mkdir()
    head_curve = curves.read(head)
    curve = [*head_curve, *curves.read(finetuned)]
    curves.write(folder / "learning_curves.csv", curve)
    predicted = [data.classes[index] for index in probabilities.argmax(axis=1)]
    actual = [data.classes[index] for index in labels]
    manifest.write_table(
        folder / "confusion.csv", ("actual", "predicted"), zip(actual, predicted, strict=True)
    )
    figures.learning_curves(folder / "learning_curves.png", curve, len(head_curve))
    counts = metrics.confusion(labels, probabilities)
    figures.confusion_matrix(folder / "confusion.png", counts, data.classes)
