"""Are these images like those that the model was made with? Tests, and a page to look at.

Compared are how strange the images are to the model, brightness, contrast, colour, sharpness,
size and the classes predicted, with the validation images. The exit code is 1 if anything
differs by more than chance.

    python -m pipeline check a_folder/
"""

import argparse
import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline.config import Config
from pipeline.data import image_file, names, traits
from pipeline.data.decoding import Decoding
from pipeline.data.image_file import Decoded, or_reason
from pipeline.errors import InputError
from pipeline.evaluation import drift
from pipeline.evaluation.drift import Finding
from pipeline.intake import named_files
from pipeline.networks import model_file
from pipeline.networks.model_file import Card
from pipeline.networks.trust.reference import Reference
from pipeline.release import registry
from pipeline.sections import Serve
from pipeline.serving.classifier import MODEL, Classifier
from pipeline.storage.outputs import PARAMS, replacing_file

SECTIONS = ("tracking", "serve")
_LEAST = 10
_STRANGEST, _SIDE_PX = 24, 160


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is compared with what, and where the page goes."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a folder, images, a pattern, or a csv file with a column path",
    )
    parser.add_argument(
        "--model",
        default=str(MODEL),
        help=f"a .keras file (default {MODEL}), or models:/NAME@champion in the registry",
    )
    parser.add_argument("--page", default="check.html", help="to write (default check.html)")
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="run code that a file named by --model holds (Lambda layers): only if you trust it",
    )


@dataclass
class Sample:
    """Images that were looked at.

    Attributes:
        paths: Of N files.
        traits: Name -> values.
        typicality: (N,).
        known: (N,).
        strangeness: (N,).
        predicted: (N,) class indices.
        unread: Files that are no images, with the reason.
        how: They were decoded, as the model wants it.
    """

    paths: list[str]
    traits: dict[str, list[float]]
    typicality: list[float]
    known: list[bool]
    strangeness: list[float]
    predicted: list[int]
    unread: list[tuple[str, str]]
    how: Decoding


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Compare, tell, write the page; returns 1 if the images differ."""
    files = list(named_files.find(options.paths))
    path = registry.model_file(options.model, lambda: compose(overrides))
    settings = compose(overrides).serve if overrides or PARAMS.exists() else Serve()
    allow_code = options.allow_code or registry.is_own(options.model)
    classifier = Classifier(path, allow_code, settings.unknown)
    reference = model_file.known(path)
    sample = look(classifier, files)
    if len(sample.paths) < _LEAST:
        raise InputError(
            f"check needs at least {_LEAST} images to tell chance from change, found "
            f"{len(sample.paths)} in {', '.join(options.paths)}{_unread(sample)}"
        )
    found = findings(reference, sample, classifier.card)
    verdict = _verdict(found, sample, settings.unknown)
    for line in (*_table(found), *verdict):
        print(line)
    page = Path(options.page)
    _write(page, found, verdict, reference, sample, options.model)
    print(f"page: {page}")
    return int(any(one.differs for one in found))


def look(classifier: Classifier, files: Sequence[Path]) -> Sample:
    """Decode and classify files, batch by batch.

    Args:
        classifier: That they are compared with.
        files: Any number; only a batch of them is in memory.
    """
    card = classifier.card
    sample = Sample([], {name: [] for name in traits.NAMES}, [], [], [], [], [], card.decoding)
    with tqdm(total=len(files), desc="check", unit="image", disable=None) as bar:
        for start in range(0, len(files), card.batch_size):
            batch = files[start : start + card.batch_size]
            good: list[tuple[Path, Decoded]] = []
            for file in batch:
                decoded = or_reason(partial(_decoded, card, file))
                if isinstance(decoded, str):
                    sample.unread.append((str(file), decoded))
                else:
                    good.append((file, decoded))
            if good:
                _add(sample, classifier, good)
            bar.update(len(batch))
    return sample


def _decoded(card: Card, file: Path) -> Decoded:
    return image_file.decode(file.read_bytes(), card.image_size, card.decoding)


def _add(sample: Sample, classifier: Classifier, good: list[tuple[Path, Decoded]]) -> None:
    answers = classifier.answers(np.stack([one.pixels for _, one in good]))
    sample.paths += [str(file) for file, _ in good]
    sample.typicality += answers.typicality.tolist()
    sample.known += answers.known.tolist()
    sample.strangeness += answers.strangeness.tolist()
    sample.predicted += answers.probabilities.argmax(axis=1).tolist()
    for _, one in good:
        for name, value in traits.of(one.pixels, one.width, one.height).items():
            sample.traits[name].append(value)


def findings(reference: Reference, sample: Sample, card: Card) -> list[Finding]:
    """A test a trait; `Sample` and what `Reference` keeps of the validation images."""
    before = {"strangeness": reference.strangeness}
    now = {"strangeness": np.array(sample.strangeness)}
    for name in traits.NAMES:
        before[name] = np.array(reference.traits[name])
        now[name] = np.array(sample.traits[name])
    labels = np.array(reference.traits["label"], dtype=np.int64)
    return drift.compare(before, now, labels, np.array(sample.predicted), card.classes)


def _table(found: list[Finding]) -> list[str]:
    lines = [f"{'':16} {'at training':>16} {'here':>16} {'difference':>11} {'p':>8}"]
    for one in found:
        mark = "  differs" if one.differs else ""
        lines.append(
            f"{one.trait:16} {names.shown(one.before):>16} {names.shown(one.now):>16} "
            f"{one.difference:11.2f} {one.p_value:8.4f}{mark}"
        )
    return lines


def _verdict(found: list[Finding], sample: Sample, unknown: float) -> list[str]:
    strange = 1 - np.mean(sample.known)
    lines = [
        f"{strange:.1%} of {len(sample.paths)} images are unknown to the model, {unknown:.1%} "
        "are to be expected"
    ]
    differing = [one.trait for one in found if one.differs]
    if differing:
        lines.append(f"These images differ from those of the training: {', '.join(differing)}.")
    else:
        lines.append("Nothing tells these images from those of the training.")
    if sample.unread:
        lines.append(_unread(sample).removeprefix("; "))
    return lines


def _unread(sample: Sample) -> str:
    """What could not be read, as the end of a sentence; empty if nothing."""
    if not sample.unread:
        return ""
    path, reason = sample.unread[0]
    return f"; {len(sample.unread)} files are no images, the first is {path}: {reason}"


def _write(
    path: Path,
    found: list[Finding],
    verdict: list[str],
    reference: Reference,
    sample: Sample,
    model: str,
) -> None:
    """Write the page: the table, a histogram a trait, the strangest images."""
    from pipeline.evaluation import figures

    before: dict[str, Any] = {"strangeness": reference.strangeness, **reference.traits}
    now: dict[str, Any] = {"strangeness": sample.strangeness, **sample.traits}
    drawn = figures.histograms({name: (before[name], now[name]) for name in now})
    strangest = np.argsort(-np.array(sample.strangeness), kind="stable")[:_STRANGEST]
    shown = [
        (
            sample.paths[place],
            sample.typicality[place],
            _thumbnail(Path(sample.paths[place]), sample.how),
        )
        for place in strangest
    ]
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
    )
    text = pages.get_template("check.html").render(
        model=model,
        found=found,
        verdict=verdict,
        histograms=base64.b64encode(drawn).decode(),
        strangest=shown,
    )
    with replacing_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _thumbnail(path: Path, how: Decoding) -> str:
    """JPEG in base64."""
    decoded = image_file.decode(path.read_bytes(), _SIDE_PX, how)
    file = io.BytesIO()
    Image.fromarray(decoded.pixels).save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()
