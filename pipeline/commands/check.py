"""Compare new images with the training data: drift tests and an HTML report.

Tests whether brightness, contrast, colour, sharpness, size, predicted classes and distance from
the training data differ from the validation images. The exit code is 1 if anything differs by
more than chance.

    python -m pipeline check a_folder/
"""

import argparse
import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import Config
from pipeline.data import image_file, names, traits
from pipeline.data.decoding import Decoding
from pipeline.errors import InputError
from pipeline.evaluation import drift
from pipeline.evaluation.drift import Finding
from pipeline.intake import named_files
from pipeline.networks import model_file
from pipeline.networks.model_file import Card
from pipeline.networks.trust.reference import Reference
from pipeline.release import registry
from pipeline.sections import Serve
from pipeline.serving.classifier import Classifier
from pipeline.storage.outputs import PARAMS, write_page

SECTIONS = ("tracking", "serve")
_MIN_IMAGES = 10
_STRANGEST, _SIDE_PX = 24, 160


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images, the model and the report's path."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a folder, images, a pattern, or a csv file with a column `path`",
    )
    registry.arguments(parser)
    parser.add_argument("--page", default="check.html", help="report to write (default check.html)")


@dataclass
class Inspected:
    """Images that were read and classified.

    Attributes:
        paths: Paths of the N readable files.
        traits: Name -> values.
        typicality: (N,).
        known: (N,).
        strangeness: (N,).
        predicted: (N,) class indices.
        unread: Files that are not images, with the reason.
        how: Decoding that the model expects.
    """

    paths: list[str]
    traits: dict[str, list[float]]
    typicality: list[float]
    known: list[bool]
    strangeness: list[float]
    predicted: list[float]
    unread: list[tuple[str, str]]
    how: Decoding


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Compare, print the result and write the page; returns 1 if the images differ."""
    files = list(named_files.find(options.paths))
    path = registry.model_file(options.model, lambda: compose(overrides))
    settings = compose(overrides).serve if overrides or PARAMS.exists() else Serve()
    allow_code = options.allow_code or registry.is_own(options.model)
    classifier = Classifier(path, allow_code, settings.unknown)
    reference = model_file.reference_of(path)
    sample = inspect(classifier, files)
    if len(sample.paths) < _MIN_IMAGES:
        raise InputError(
            f"check needs at least {_MIN_IMAGES} images to tell a change from chance, got "
            f"{len(sample.paths)} in {', '.join(options.paths)}{_unread(sample)}"
        )
    results = findings(reference, sample, classifier.card)
    verdict = _verdict(results, sample, settings.unknown)
    for line in (*_table(results), *verdict):
        print(line)
    page = Path(options.page)
    _write(page, results, verdict, reference, sample, options.model)
    print(f"report: {page}")
    return int(any(finding.differs for finding in results))


def inspect(classifier: Classifier, files: Sequence[Path]) -> Inspected:
    """Decode and classify files."""
    how = classifier.card.decoding
    sample = Inspected([], {name: [] for name in traits.NAMES}, [], [], [], [], [], how)
    for batch, answers in classifier.of_files(files, "check"):
        for file, image in batch:
            if isinstance(image, str):
                sample.unread.append((str(file), image))
                continue
            sample.paths.append(str(file))
            for name, value in traits.of(image.pixels, image.width, image.height).items():
                sample.traits[name].append(value)
        if answers is not None:
            sample.typicality += answers.typicality.tolist()
            sample.known += answers.known.tolist()
            sample.strangeness += answers.strangeness.tolist()
            sample.predicted += classifier.task.trait(answers.probabilities)[1]
    return sample


def findings(reference: Reference, sample: Inspected, card: Card) -> list[Finding]:
    """Test each trait against the validation images kept in `Reference`."""
    before = {"strangeness": reference.strangeness}
    now = {"strangeness": np.array(sample.strangeness)}
    for name in traits.NAMES:
        before[name] = np.array(reference.traits[name])
        now[name] = np.array(sample.traits[name])
    named = next(name for name in reference.traits if name not in traits.NAMES)
    predicted = np.array(reference.traits[named]), np.array(sample.predicted)
    if named != "label":
        before[named], now[named] = predicted
        return drift.compare(before, now)
    return drift.compare(before, now, predicted, card.classes)


def _table(results: list[Finding]) -> list[str]:
    lines = [f"{'':16} {'at training':>16} {'now':>16} {'difference':>11} {'p':>8}"]
    for finding in results:
        mark = "  differs" if finding.differs else ""
        lines.append(
            f"{finding.trait:16} {names.display(finding.before):>16} "
            f"{names.display(finding.now):>16} "
            f"{finding.difference:11.2f} {finding.p_value:8.4f}{mark}"
        )
    return lines


def _verdict(results: list[Finding], sample: Inspected, unknown: float) -> list[str]:
    strange = 1 - np.mean(sample.known)
    lines = [
        f"{100 * strange:.1f} % of {len(sample.paths)} images are unknown to the model; "
        f"{100 * unknown:g} % are expected by chance."
    ]
    differing = [finding.trait for finding in results if finding.differs]
    if differing:
        lines.append(f"These images differ from the training data: {', '.join(differing)}.")
    else:
        lines.append("These images do not differ measurably from the training data.")
    if sample.unread:
        lines.append(f"{_unread(sample).removeprefix('; ')}.")
    return lines


def _unread(sample: Inspected) -> str:
    """Count the unreadable files, as the end of a sentence; empty if there are none."""
    if not sample.unread:
        return ""
    path, reason = sample.unread[0]
    return f"; {len(sample.unread)} files are not images, the first is {path}: {reason}"


def _write(
    path: Path,
    results: list[Finding],
    verdict: list[str],
    reference: Reference,
    sample: Inspected,
    model: str,
) -> None:
    """Write the page: the table, a histogram for each trait, the strangest images."""
    from pipeline.data.tasks import figures

    before: dict[str, Any] = {"strangeness": reference.strangeness, **reference.traits}
    now: dict[str, Any] = {"strangeness": sample.strangeness, **sample.traits}
    drawn = figures.histograms({name: (before[name], now[name]) for name in now})
    strangest = np.argsort(-np.array(sample.strangeness), kind="stable")[:_STRANGEST]
    cards = [
        (
            sample.paths[place],
            sample.typicality[place],
            _thumbnail(Path(sample.paths[place]), sample.how),
        )
        for place in strangest
    ]
    write_page(
        path,
        Path(__file__).with_name("templates") / "check.html",
        model=model,
        findings=results,
        verdict=verdict,
        histograms=base64.b64encode(drawn).decode(),
        strangest=cards,
    )


def _thumbnail(path: Path, how: Decoding) -> str:
    """Encode a small JPEG in base64."""
    decoded = image_file.decode(path.read_bytes(), _SIDE_PX, how)
    file = io.BytesIO()
    Image.fromarray(decoded.pixels).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
