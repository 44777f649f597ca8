"""Classify images: prediction, probabilities, and whether the image is unknown.

An image unlike the training data is flagged as unknown (serve.unknown). Files that are not images
are reported and skipped; the exit code is then 1.

    python -m pipeline predict some.jpg a_folder/ 'photos/**/*.png' --csv
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline.config import Config
from pipeline.data import names
from pipeline.data.predictions import TRUST, cell
from pipeline.data.tasks import Task
from pipeline.errors import InputError
from pipeline.intake import named_files
from pipeline.release import registry
from pipeline.sections import Serve
from pipeline.serving.classifier import Classifier
from pipeline.storage import tables
from pipeline.storage.outputs import PARAMS

SECTIONS = ("serve.unknown", "serve.coverage", "promote.name", "tracking.uri")


@dataclass(frozen=True)
class Prediction:
    """The model's answer for a file, or why there is none.

    Attributes:
        path: Path as on the command line.
        answer: As returned by `Answers.answer`; empty for a file that is not an image.
        decided: The prediction, as a label.
        outputs: (K,).
        error: Empty for an image.
    """

    path: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    decided: str = ""
    outputs: Sequence[np.float32] = ()
    error: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images, the model and the output format."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image, a folder, a pattern ('photos/**/*.jpg'), a csv file with a column `path`, "
        "or - for names on standard input, one per line",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="number of most probable classes to print (default 3; with --json all)",
    )
    registry.arguments(parser)
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="also print the smallest set of labels that contains the true one for this fraction "
        "of images; needs prepare.calibration_fraction (default serve.coverage, if the model "
        "supports it)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument("--csv", action="store_true", help="a csv table with every probability")


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Classify the images on the command line; returns 1 if a file could not be classified."""
    if options.top_k is not None and options.top_k < 1:
        raise InputError(f"--top-k must be at least 1, got {options.top_k}")
    if options.coverage is not None and not 0 < options.coverage < 1:
        raise InputError(f"--coverage must be above 0 and below 1, got {options.coverage:g}")
    files = list(named_files.find(options.paths))
    if not files:
        raise InputError(f"no images to classify in {', '.join(options.paths)}")
    model = registry.model_file(options.model, lambda: compose(overrides))
    allow_code = options.allow_code or registry.is_own(options.model)
    settings = compose(overrides).serve if overrides or PARAMS.exists() else Serve()
    coverage, insist = options.coverage or settings.coverage, options.coverage is not None
    classifier = Classifier(model, allow_code, settings.unknown, coverage, insist)
    predictions = predict(classifier, files)
    if options.json:
        return _write_json(predictions, options.top_k, sys.stdout)
    if options.csv:
        return _write_csv(predictions, classifier, sys.stdout)
    return _write_lines(predictions, classifier.task, options.top_k or 3, sys.stdout)


def predict(classifier: Classifier, files: Sequence[Path]) -> Iterator[Prediction]:
    """Classify files, in order."""
    for batch, answers in classifier.of_files(files, "predict"):
        row = 0
        for file, image in batch:
            if isinstance(image, str) or answers is None:
                yield Prediction(str(file), error=str(image))
                continue
            answer = answers.answer(row, classifier.task, classifier.card.classes)
            yield Prediction(str(file), answer, answers.decided[row], answers.probabilities[row])
            row += 1


def _write_lines(predictions: Iterator[Prediction], task: Task, top_k: int, target: TextIO) -> int:
    failed = 0
    for item in predictions:
        failed += bool(item.error)
        answer = item.answer
        text = f"error: {item.error}" if item.error else task.text(answer, top_k)
        if answer.get("labels"):
            text += f"  {{{', '.join(answer['labels'])}}}"
        if answer.get("known") is False:
            text = f"unknown (typicality {answer['typicality']:.4f})  {text}"
        print(f"{names.display(item.path)}\t{text}", file=target)
    return int(failed > 0)


def _write_json(predictions: Iterator[Prediction], top_k: int | None, target: TextIO) -> int:
    """Write one JSON object per line."""
    failed = 0
    for item in predictions:
        failed += bool(item.error)
        answer = {name: value for name, value in item.answer.items() if name != "probability"}
        if probabilities := answer.pop("probabilities", None):
            ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
            answer["probabilities"] = dict(ranked[:top_k]) if top_k else probabilities
        line = {"path": item.path, **({"error": item.error} if item.error else answer)}
        print(json.dumps(line), file=target)
    return int(failed > 0)


def _write_csv(predictions: Iterator[Prediction], classifier: Classifier, target: TextIO) -> int:
    """Write the columns of evaluate's predictions.csv, and the error."""
    writer, task = tables.rows_to(target), classifier.task
    trusted, of_outputs = (*TRUST, *task.region), task.columns(classifier.card.classes)
    columns = ["path", "prediction", *trusted, *of_outputs, "error"]
    writer.writerow([*map(tables.harmless, columns)])
    failed = 0
    for item in predictions:
        failed += bool(item.error)
        values = [str(item.outputs[n]) if not item.error else "" for n in range(len(of_outputs))]
        trust = [cell(item.answer.get(name)) for name in trusted]
        cells = [item.path, item.decided, *trust, *values, item.error]
        writer.writerow([*map(tables.harmless, cells)])
    return int(failed > 0)
