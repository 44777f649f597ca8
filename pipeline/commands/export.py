"""Export the trained classifier to other runtimes, each checked against Keras.

Each export runs on up to 500 test images and is put in place only if it agrees with Keras;
otherwise the exit code is 1. All take (B, H, W, 3) float32 RGB in [0, 255] and return (B, K)
probabilities, except tflite_int8: one image at a time, uint8 in and out, for accelerators without
float arithmetic (the input and output tensors hold scale and zero point).

    python -m pipeline export onnx tflite
"""

import argparse
import errno
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from pipeline.release.candidate import ADDED
from pipeline.storage import digests, outputs, tables

SECTIONS = ("tracking",)
OUT = Path("exported")
PREPARED = outputs.ROOT / "prepare"
_CALIBRATION_IMAGES = 200
_TEST_IMAGES = 500
_CARD, _AGREEMENT = "classifier.json", "agreement.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the formats, the model and the output folder."""
    parser.add_argument(
        "formats", nargs="*", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default all)"
    )
    registry.arguments(parser)
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FOLDER", help=f"output folder (default {OUT}/)"
    )
    parser.add_argument(
        "--min-agreement",
        type=float,
        default=0.95,
        metavar="SHARE",
        help="fraction of images for which tflite_int8 must predict Keras' class (default 0.95); "
        f"other formats must for all images, with probabilities within {TOLERANCE}",
    )


def run(
    options: argparse.Namespace,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], Config],
) -> int:
    """Export the formats on the command line; returns 1 if one could not be exported."""
    if not 0 <= options.min_agreement <= 1:
        raise InputError(f"--min-agreement must be between 0 and 1, got {options.min_agreement}")
    path = registry.model_file(options.model, lambda: compose(overrides))
    card = model_file.read_card(path)
    manifest, tested = _manifests(card)
    names = list(_available(options.formats))
    runtime.configure(0, card.threads)
    from pipeline.networks.keras_forward import KerasForward

    model, card = model_file.load(path, options.allow_code or registry.is_own(options.model))
    train = _evenly(manifest.indices("train"), _CALIBRATION_IMAGES)
    test = _evenly(tested.indices("test"), _TEST_IMAGES)
    thresholds = model_file.thresholds_of(path)
    check = Check(
        tested,
        test,
        KerasForward(model, card.batch_size),
        card.batch_size,
        options.min_agreement,
        thresholds,
    )
    print(f"{'keras':13}{check.keras(path)}  {options.model}")
    basis = {"model_sha256": digests.file_sha256(path), "images_sha256": manifest.images_sha256}

    def export(name: str, stderr: TextIO) -> Agreement:
        source = Source(model, manifest.images[train], stderr)
        agreement = _export(name, source, options.out, check, card.threads)
        results = {"keras": check.keras(path), name: agreement}
        _describe(options.out, card, thresholds, basis, results)
        return agreement

    done = _export_all(names, options.out, export)
    if done:
        print(
            f"{', '.join(done)}: exported and checked against Keras on {len(test)} test images; "
            f"{options.out / _CARD} describes input and output"
        )
    _warn_foreign(options.out)
    return int(len(done) < len(names))


def _export_all(
    names: Sequence[str], out: Path, export: Callable[[str, TextIO], Agreement]
) -> list[str]:
    """Export the formats one by one and print each result; returns those put in place."""
    new, done = not out.exists(), []
    out.mkdir(parents=True, exist_ok=True)
    try:
        # The libraries report their progress to stderr; failures are exceptions.
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
    """Write a format aside, check it, and put it in place."""
    form = FORMATS[name]
    path = out / form.path
    place = outputs.replacing_file if path.suffix else outputs.replacing
    with place(path) as aside:
        try:
            form.write(source, aside)
            return check(name, form.read(aside, threads), aside, source.stderr)
        except (InputError, OSError):  # these explain themselves
            raise
        except Exception as error:  # converters raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if os.strerror(errno.ENOSPC) in reason:  # as TensorFlow reports it
                raise OSError(errno.ENOSPC, reason) from error
            raise InputError(
                f"{name} cannot represent this network: {shortened(reason)}: replace the layer, or "
                "export another format"
            ) from error


def _describe(
    out: Path,
    card: model_file.Card,
    thresholds: list[float],
    basis: dict[str, str],
    results: dict[str, Agreement],
) -> None:
    """Record what the exports are and how they agree; drop records of other models."""
    size, count = card.image_size, len(card.classes)
    described = {
        "classes": card.classes,
        "fit": card.decoding.fit,
        "tones": str(card.decoding.tones) if card.decoding.tones else "8 bits",
        "image_size": size,
        "input": f"(B, {size}, {size}, 3) float32 RGB, 0 to 255",
        "task": card.task,
        "output": f"(B, {count}) float32 outputs",
        "left_out": f"known, typicality, {', '.join(card.predicts.region)} (docs/trust.md)",
        **({"thresholds": thresholds} if thresholds else {}),
        "model_int8.tflite": "B = 1; uint8 in and out, value = (uint8 - zero point) * scale",
    }
    manifest: dict[str, Any] = {**basis, "networks": {}}
    before = _recorded(out)
    if {name: before.get(name) for name in basis} == basis:
        manifest["networks"] |= before["networks"]
    for name, agreement in results.items():
        values = asdict(agreement)
        quality, value = values.pop("quality"), values.pop("value")
        manifest["networks"][name] = {quality: value, **values}
    for name, content in ((_CARD, described), (_AGREEMENT, manifest)):
        with outputs.replacing_file(out / name) as aside:
            tables.write_json(aside, content)


def _warn_foreign(out: Path) -> None:
    """Name files left by an earlier export of another model or other images."""
    if not (recorded := _recorded(out)):
        return
    for name, form in FORMATS.items():
        path = out / form.path
        if path.exists() and name not in recorded["networks"]:
            print(f"note: {path} belongs to another model or dataset: export {name}, or remove it")


def _recorded(out: Path) -> dict[str, Any]:
    path = out / _AGREEMENT
    return dict(tables.read_json(path)) if path.is_file() else {}


def _available(named: Sequence[str]) -> Iterator[str]:
    """List the requested formats whose libraries are installed.

    Raises:
        InputError: Unknown format, or a library of a format named on the command line is missing.
    """
    for name in dict.fromkeys(named or FORMATS):
        if name not in FORMATS:
            raise InputError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
        libraries = FORMATS[name].libraries
        missing = [library for library in libraries if importlib.util.find_spec(library) is None]
        remedy = f"{', '.join(missing)}, not installed: pip install {' '.join(libraries)}"
        if not missing:
            yield name
        elif named:
            raise InputError(f"{name} needs {remedy}")
        else:
            print(f"{name:13}skipped: needs {remedy}")


def _manifests(card: model_file.Card) -> tuple[Manifest, Manifest]:
    """Open the prepared images and those to test with, and check that they match the model.

    These are the same, unless a class was added to the model.
    """
    manifest = tested = Manifest(PREPARED)
    if manifest.classes != card.classes and (ADDED / "manifest.csv").exists():
        tested = Manifest(ADDED)
    expected = (card.image_size, card.decoding, card.classes)
    actual = (manifest.image_size, manifest.decoding, tested.classes)
    if actual != expected:
        raise InputError(
            f"the images in {PREPARED} do not match the model: {_words(*expected)} expected, got "
            f"{_words(*actual)}; restore the params.yaml of the model and run dvc repro"
        )
    return manifest, tested


def _words(size: int, decoding: Decoding, classes: list[str]) -> str:
    named = ", ".join(classes[:3]) + (" ..." if len(classes) > 3 else "")
    tones = f", {decoding.tones}" if decoding.tones else ""
    return f"{size} px, {decoding.fit}{tones}, {len(classes)} classes ({named})"


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Select at most `most` rows, evenly spaced."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int)
    return np.asarray(rows[places])
