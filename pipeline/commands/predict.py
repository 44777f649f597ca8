"""Classify pictures: label and probabilities, as evaluate computes them.

Files that are no pictures are reported and do not stop the rest; the exit code is then 1.

    python -m pipeline predict some.jpg a_folder/ 'photos/**/*.png' --csv
"""

from __future__ import annotations

import argparse
import csv
import glob
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from tqdm import tqdm

from pipeline.data import names
from pipeline.data.images import Pixels, or_reason
from pipeline.errors import InputError
from pipeline.networks import model_file
from pipeline.release import registry
from pipeline.serving.classifier import MODEL, Classifier
from pipeline.storage import tables

if TYPE_CHECKING:
    from pipeline.config import Config

SECTIONS = ("tracking",)


@dataclass(frozen=True)
class Prediction:
    """What the model says of a file, or why it says nothing.

    Attributes:
        path: As given.
        probabilities: Class -> probability; empty for a file that is no picture.
        error: Empty for a picture.
    """

    path: str
    probabilities: dict[str, np.float32]
    error: str = ""

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
        help="a picture, a folder, a pattern ('photos/**/*.jpg'), a csv file with a column path, "
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
    files = list(_files(options.paths))
    if not files:
        raise InputError(f"predict needs pictures, found none in {', '.join(options.paths)}")
    model = registry.model_file(options.model, lambda: compose(overrides))
    predictions = predict(model, files, options.allow_code or registry.is_own(options.model))
    if options.json:
        return _write_json(predictions, options.top_k, sys.stdout)
    if options.csv:
        return _write_csv(predictions, model_file.read_card(model).classes, sys.stdout)
    return _write_lines(predictions, options.top_k or 3, sys.stdout)


def predict(
    model_path: Path, files: Sequence[Path], allow_code: bool = False
) -> Iterator[Prediction]:
    """Classify files, batch by batch, in order.

    Batches and threads are those of the evaluation, so are the probabilities.

    Args:
        model_path: A .keras file of this pipeline.
        files: Any number; only a batch of them is in memory.
        allow_code: Whether code in the file may run.

    Raises:
        InputError: The model cannot be read.
    """
    classifier = Classifier(model_path, allow_code)
    card = classifier.card
    with tqdm(total=len(files), desc="predict", unit="picture", disable=None) as bar:
        for start in range(0, len(files), card.batch_size):
            batch = files[start : start + card.batch_size]
            decoded = [or_reason(partial(_decoded, classifier, file)) for file in batch]
            good = [pixels for pixels in decoded if not isinstance(pixels, str)]
            rows = iter(classifier.probabilities(np.stack(good)) if good else ())
            for file, pixels in zip(batch, decoded, strict=True):
                if isinstance(pixels, str):
                    yield Prediction(str(file), {}, pixels)
                else:
                    yield Prediction(str(file), dict(zip(card.classes, next(rows), strict=True)))
            bar.update(len(batch))


def _decoded(classifier: Classifier, file: Path) -> Pixels:
    return classifier.decode(file.read_bytes())


def _files(paths: Sequence[str]) -> Iterator[Path]:
    """The files named, in folders named, matched, or listed; hidden ones only if named."""
    for name in paths:
        path = Path(name)
        if name == "-":
            yield from _files([line for line in sys.stdin.read().splitlines() if line])
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = file.relative_to(path).parts
                if file.is_file() and not any(part.startswith(".") for part in inside):
                    yield file
        elif path.suffix.lower() == ".csv" and path.is_file():
            yield from _listed(path)
        elif not path.exists() and glob.has_magic(name):
            # Path.glob takes no pattern that begins at the root.
            yield from _files(sorted(glob.glob(name, recursive=True)))  # noqa: PTH207
        else:
            yield path


def _listed(path: Path) -> Iterator[Path]:
    """The files in the column `path` of a csv file, relative to it."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if "path" not in (table.fieldnames or ()):
            raise InputError(f"{path} needs a header with the column path, got {table.fieldnames}")
        for row in table:
            yield path.parent / row["path"]


def _write_lines(found: Iterator[Prediction], top_k: int, target: TextIO) -> int:
    failed = 0
    for one in found:
        failed += bool(one.error)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in one.most_probable(top_k).items())
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
        line |= {"error": one.error} if one.error else {"label": one.label, "probabilities": values}
        print(json.dumps(line), file=target)
    return int(failed > 0)


def _write_csv(found: Iterator[Prediction], classes: list[str], target: TextIO) -> int:
    """The columns of evaluate's predictions.csv, and the error."""
    writer = tables.rows_to(target)
    writer.writerow([*map(tables.harmless, ["path", "predicted", *classes, "error"])])
    failed = 0
    for one in found:
        failed += bool(one.error)
        values = [str(one.probabilities[name]) if not one.error else "" for name in classes]
        writer.writerow([*map(tables.harmless, [one.path, one.label, *values, one.error])])
    return int(failed > 0)
