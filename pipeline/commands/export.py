"""Write the trained classifier for other runtimes, each checked against Keras.

Each export is run on images of the test split (at most 500) and put in place only if it agrees
with Keras; if one does not, the exit code is 1. All take (B, H, W, 3) float32 RGB in [0, 255] and
give (B, K) probabilities, except tflite_int8: one image at a time, uint8 in and out, as
accelerators without float arithmetic need it (the input and output tensors hold scale and zero
point).

    python -m pipeline export onnx tflite
"""

import argparse
import errno
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.config import Config
from pipeline.data.decoding import Decoding
from pipeline.data.manifest import Manifest
from pipeline.errors import InputError, shortened
from pipeline.export.agreement import TOLERANCE, Agreement, Check
from pipeline.export.formats import FORMATS, Source
from pipeline.networks import model_file, runtime
from pipeline.release import registry
from pipeline.serving.classifier import MODEL
from pipeline.storage import digests, outputs, tables

SECTIONS = ("tracking",)
OUT = Path("exported")
PREPARED = outputs.ROOT / "prepare"
_CALIBRATION_IMAGES = 200
_TEST_IMAGES = 500
_CARD, _AGREEMENT = "classifier.json", "agreement.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the formats, the model, and where they go."""
    parser.add_argument(
        "formats",
        nargs="*",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default all)",
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
        "--out", type=Path, default=OUT, metavar="FOLDER", help=f"where to (default {OUT}/)"
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="of the images that tflite_int8 must put in Keras' class (default 0.95); the other "
        f"formats must for all, and give the probabilities within {TOLERANCE}",
    )


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Export what the command line names; returns 1 if a format could not be exported."""
    if not 0 <= options.min_agreement <= 1:
        raise InputError(f"--min-agreement must be between 0 and 1, got {options.min_agreement}")
    path = registry.model_file(options.model, lambda: compose(overrides))
    card = model_file.read_card(path)
    manifest = _manifest(card)
    names = list(_available(options.formats))
    runtime.configure(0, card.threads)
    from pipeline.networks.keras_forward import KerasForward

    model, card = model_file.load(path, options.allow_code or registry.is_own(options.model))
    train = _evenly(manifest.indices("train"), _CALIBRATION_IMAGES)
    test = _evenly(manifest.indices("test"), _TEST_IMAGES)
    check = Check(
        manifest.images[test],
        manifest.labels[test],
        KerasForward(model, card.batch_size),
        card.batch_size,
        options.min_agreement,
    )
    print(f"{'keras':13}{check.keras(path)}  {options.model}")
    basis = {
        "model_sha256": digests.file_sha256(path),
        "images_sha256": manifest.images_sha256,
    }

    def export(name: str, stderr: TextIO) -> Agreement:
        source = Source(model, manifest.images[train], stderr)
        agreement = _export(name, source, options.out, check, card.threads)
        _describe(options.out, card, basis, {"keras": check.keras(path), name: agreement})
        return agreement

    done = _export_all(names, options.out, export)
    if done:
        print(
            f"{', '.join(done)}: in place, as each agrees with Keras on {len(test)} test images; "
            f"{options.out / _CARD} says what goes in and what comes out"
        )
    _tell_foreign(options.out)
    return int(len(done) < len(names))


def _export_all(
    names: Sequence[str], out: Path, export: Callable[[str, TextIO], Agreement]
) -> list[str]:
    """Export one format after the other and tell how each went; returns those in place."""
    new, done = not out.exists(), []
    out.mkdir(parents=True, exist_ok=True)
    try:
        # The libraries report to stderr what they do; what goes wrong is an exception.
        with (
            runtime.quiet() as stderr,
            warnings.catch_warnings(action="ignore"),
            tqdm(names, "export", unit="format", file=stderr, disable=None, leave=False) as bar,
        ):
            for name in bar:
                bar.set_postfix_str(name)
                try:
                    agreement = export(name, stderr)
                except InputError as error:
                    bar.write(f"error: {error}", file=stderr)
                else:
                    bar.write(f"{name:13}{agreement}  {out / FORMATS[name].path}", file=sys.stdout)
                    done.append(name)
    finally:
        if new and not any(out.iterdir()):
            out.rmdir()
    return done


def _export(name: str, source: Source, out: Path, check: Check, threads: int) -> Agreement:
    """Write a format aside, check it, put it in place."""
    form = FORMATS[name]
    with _replacing(out / form.path) as aside:
        try:
            form.write(source, aside)
            return check(name, form.read(aside, threads), aside, source.stderr)
        except (InputError, OSError):  # they tell themselves
            raise
        except Exception as error:  # converters raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if os.strerror(errno.ENOSPC) in reason:  # as TensorFlow says it
                raise OSError(errno.ENOSPC, reason) from error
            raise InputError(
                f"{name} must be able to hold every layer of the network, got {shortened(reason)}: "
                "replace the layer, or export another format"
            ) from error


def _describe(
    out: Path, card: model_file.Card, basis: dict[str, str], found: dict[str, Agreement]
) -> None:
    """Record what the exports are and how they agree; forget those of another model."""
    size, count = card.image_size, len(card.classes)
    described = {
        "classes": card.classes,
        "fit": card.decoding.fit,
        "tones": str(card.decoding.tones) if card.decoding.tones else "8 bits",
        "image_size": size,
        "input": f"(B, {size}, {size}, 3) float32 RGB, 0 to 255",
        "output": f"(B, {count}) float32 probabilities",
        "left_out": "known, typicality, labels: whether it knows such images (docs/trust.md)",
        "model_int8.tflite": "B = 1; uint8 in and out, value = (uint8 - zero point) * scale",
    }
    manifest: dict[str, Any] = {**basis, "networks": {}}
    before = _recorded(out)
    if {name: before.get(name) for name in basis} == basis:
        manifest["networks"] |= before["networks"]
    manifest["networks"] |= {name: asdict(agreement) for name, agreement in found.items()}
    for name, content in ((_CARD, described), (_AGREEMENT, manifest)):
        with outputs.replacing_file(out / name) as aside:
            tables.write_json(aside, content)


def _tell_foreign(out: Path) -> None:
    """Name what an earlier export of another model, or other images, has left."""
    if not (recorded := _recorded(out)):
        return
    for name, form in FORMATS.items():
        path = out / form.path
        if path.exists() and name not in recorded["networks"]:
            print(f"note: {path} is of another model or other data: export {name}, or remove it")


def _recorded(out: Path) -> dict[str, Any]:
    path = out / _AGREEMENT
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _available(named: Sequence[str]) -> Iterator[str]:
    """The formats asked for whose libraries are installed.

    Raises:
        InputError: There is no such format, or a library of one that was named is missing.
    """
    for name in dict.fromkeys(named or FORMATS):
        if name not in FORMATS:
            raise InputError(f"the format must be one of {', '.join(FORMATS)}, got {name!r}")
        libraries = FORMATS[name].libraries
        missing = [one for one in libraries if importlib.util.find_spec(one) is None]
        remedy = f"{', '.join(missing)}, not installed: pip install {' '.join(libraries)}"
        if not missing:
            yield name
        elif named:
            raise InputError(f"{name} needs {remedy}")
        else:
            print(f"{name:13}skipped, it needs {remedy}")


def _manifest(card: model_file.Card) -> Manifest:
    """The prepared images, as the model wants them."""
    manifest = Manifest(PREPARED)
    expected = (card.image_size, card.decoding, card.classes)
    found = (manifest.image_size, manifest.decoding, manifest.classes)
    if found != expected:
        raise InputError(
            f"the images of {PREPARED} must be those of the model, {_words(*expected)}, got "
            f"{_words(*found)}: restore the "
            "params.yaml that the model was made with, and run dvc repro"
        )
    return manifest


def _words(size: int, decoding: Decoding, classes: list[str]) -> str:
    named = ", ".join(classes[:3]) + (" ..." if len(classes) > 3 else "")
    tones = f", {decoding.tones}" if decoding.tones else ""
    return f"{size} px, {decoding.fit}{tones}, {len(classes)} classes ({named})"


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of the rows, evenly over them."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)
    return np.asarray(rows[places])


def _replacing(path: Path) -> AbstractContextManager[Path]:
    return outputs.replacing_file(path) if path.suffix else outputs.replacing(path)
