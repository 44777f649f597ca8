"""Classify images: label and probabilities, as evaluate computes them.

An image unlike those that the model was made with is called unknown (serve.unknown). Files that
are no images are reported and do not stop the rest; the exit code is then 1.

    python -m pipeline predict some.jpg a_folder/ 'photos/**/*.png' --csv
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from tqdm import tqdm

from pipeline.config import Config
from pipeline.data import names
from pipeline.data.image_file import Pixels, or_reason
from pipeline.data.predictions import TRUST, columns_of, told_of
from pipeline.errors import InputError
from pipeline.intake import named_files
from pipeline.release import registry
from pipeline.sections import Serve
from pipeline.serving.classifier import MODEL, Classifier
from pipeline.storage import tables
from pipeline.storage.outputs import PARAMS

SECTIONS = ("tracking", "serve")


@dataclass(frozen=True)
class Prediction:
    """What the model says of a file, or why it says nothing.

    Attributes:
        path: As given.
        probabilities: Class -> probability; empty for a file that is no image.
        error: Empty for an image.
        trust: known, typicality and labels, as `Answers.trusted` gives them.
    """

    path: str
    probabilities: dict[str, np.float32]
    error: str = ""
    trust: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name], default="")

    def most_probable(self, count: int) -> dict[str, np.float32]:
        """The `count` most probable classes, in order."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return dict(ranked[:count])


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is classified, by which model, and how it is shown."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image, a folder, a pattern ('photos/**/*.jpg'), a csv file with a column path, "
        "or - for names on standard input, one a line",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="tell the K most probable classes (default 3; with --json all)",
    )
    parser.add_argument(
        "--model",
        default=str(MODEL),
        help=f"a .keras file (default {MODEL}), or models:/NAME@champion in the registry",
    )
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="run code that a file named by --model holds (Lambda layers): only if you trust it",
    )
    parser.add_argument(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="also give each image the smallest set of labels that has the true one for this "
        "share of images; needs prepare.calibration_fraction (default serve.coverage, where the "
        "model has it)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a table with every probability in full")


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Classify what the command line names; returns 1 if any file could not be classified."""
    if options.top_k is not None and options.top_k < 1:
        raise InputError(f"--top-k must be at least 1, got {options.top_k}")
    if options.coverage is not None and not 0 < options.coverage < 1:
        raise InputError(f"--coverage must be above 0 and below 1, got {options.coverage:g}")
    files = list(named_files.find(options.paths))
    if not files:
        raise InputError(f"predict needs images, found none in {', '.join(options.paths)}")
    model = registry.model_file(options.model, lambda: compose(overrides))
    allow_code = options.allow_code or registry.is_own(options.model)
    settings = compose(overrides).serve if overrides or PARAMS.exists() else Serve()
    coverage, insist = options.coverage or settings.coverage, options.coverage is not None
    classifier = Classifier(model, allow_code, settings.unknown, coverage, insist)
    predictions = predict(classifier, files)
    if options.json:
        return _write_json(predictions, options.top_k, sys.stdout)
    if options.csv:
        return _write_csv(predictions, classifier.card.classes, sys.stdout)
    return _write_lines(predictions, options.top_k or 3, sys.stdout)


def predict(classifier: Classifier, files: Sequence[Path]) -> Iterator[Prediction]:
    """Classify files, batch by batch, in order.

    Batches and threads are those of the evaluation, so are the probabilities.

    Args:
        classifier: What classifies them.
        files: Any number; only a batch of them is in memory.
    """
    card = classifier.card
    with tqdm(total=len(files), desc="predict", unit="image", disable=None) as bar:
        for start in range(0, len(files), card.batch_size):
            batch = files[start : start + card.batch_size]
            decoded = [or_reason(partial(_decoded, classifier, file)) for file in batch]
            good = [pixels for pixels in decoded if not isinstance(pixels, str)]
            answers = classifier.answers(np.stack(good)) if good else None
            row = 0
            for file, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, str) or answers is None:
                    yield Prediction(str(file), {}, str(pixels))
                    continue
                values = dict(zip(card.classes, answers.probabilities[row], strict=True))
                yield Prediction(str(file), values, trust=answers.trusted(row, card.classes))
                row += 1
            bar.update(len(batch))


def _decoded(classifier: Classifier, file: Path) -> Pixels:
    return classifier.decode(file.read_bytes())


def _write_lines(found: Iterator[Prediction], top_k: int, target: TextIO) -> int:
    failed = 0
    for one in found:
        failed += bool(one.error)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in one.most_probable(top_k).items())
        if one.trust.get("labels"):
            shown += f"  {{{', '.join(one.trust['labels'])}}}"
        if one.trust.get("known") is False:
            shown += f"  unknown (typicality {one.trust['typicality']:.4f})"
        print(f"{names.shown(one.path)}\t{shown or 'error: ' + one.error}", file=target)
    return int(failed > 0)


def _write_json(found: Iterator[Prediction], top_k: int | None, target: TextIO) -> int:
    """One JSON object a line."""
    failed = 0
    for one in found:
        failed += bool(one.error)
        probabilities = one.most_probable(top_k) if top_k else one.probabilities
        values = {name: float(value) for name, value in probabilities.items()}
        line: dict[str, object] = {"path": one.path}
        said = {"label": one.label, **one.trust, "probabilities": values}
        line |= {"error": one.error} if one.error else said
        print(json.dumps(line), file=target)
    return int(failed > 0)


def _write_csv(found: Iterator[Prediction], classes: list[str], target: TextIO) -> int:
    """The columns of evaluate's predictions.csv, and the error."""
    writer = tables.rows_to(target)
    columns = ["path", "predicted", *TRUST, *columns_of(classes), "error"]
    writer.writerow([*map(tables.harmless, columns)])
    failed = 0
    for one in found:
        failed += bool(one.error)
        values = [str(one.probabilities[name]) if not one.error else "" for name in classes]
        trust = told_of(*(one.trust.get(name) for name in TRUST))
        cells = [one.path, one.label, *trust, *values, one.error]
        writer.writerow([*map(tables.harmless, cells)])
    return int(failed > 0)
