"""The classifier on disk: one .keras file, the same bytes for the same weights.

Keras model + class names + how to decode <-> model.keras, which also holds the network as it
was converted for the engine that computes it, and what its answers are compared with. Keras' own
files differ between two saves (dates, zip times, ids that are memory addresses); these do not.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.data.decoding import Decoding
from pipeline.errors import InputError
from pipeline.networks import engines, heads, runtime
from pipeline.networks.engines import Converted
from pipeline.networks.forward import Forward
from pipeline.networks.trust import reference
from pipeline.networks.trust.reference import Reference
from pipeline.storage.outputs import replacing_file

if TYPE_CHECKING:
    import keras

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CONVERTED = "forward/"
_REFERENCE = "reference/"
"""Folders in the file, which Keras does not look into."""
_PACKAGES = {"keras_hub": "keras-hub"}
"""Module of layers beside Keras' own -> how pip calls it."""


@dataclass(frozen=True)
class Card:
    """What a classifier needs beside its network; kept inside the .keras file.

    Attributes:
        classes: Class names, in the order of the outputs.
        image_size: Side of the images in px.
        decoding: How an image's file becomes pixels.
        batch_size: Rows of a forward pass; the last bits of results depend on it.
        threads: Threads inside an operation; likewise.
        allow_code: Whether its backbone was allowed code of its own (Lambda layers).
        engine: What computes: name, version and precision of the engine; None for Keras.
    """

    classes: list[str]
    image_size: int
    decoding: Decoding
    batch_size: int
    threads: int
    allow_code: bool = False
    engine: dict[str, str] | None = None


def save(
    model: keras.Model,
    path: Path,
    card: Card | None = None,
    converted: Converted | None = None,
    known: Reference | None = None,
) -> None:
    """Write a model, replacing `path` at the end.

    Args:
        model: A Keras model, compiled or not; how it was compiled is not kept.
        path: Ends in .keras.
        card: Kept in the file's metadata, where Keras ignores it.
        converted: The same network for another engine, with its features.
        known: The images that it was made with, as it sees them.
    """
    if card is not None and converted is not None:
        about = {key: value for key, value in vars(converted).items() if key != "files"}
        card = replace(card, engine=about)
    with tempfile.TemporaryDirectory() as scratch, replacing_file(path) as aside:
        plain = Path(scratch) / "model.keras"
        model.save(plain, include_optimizer=False)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(aside, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    content = _metadata(content, card)
                if name == "config.json":
                    content = _config(content)
                target.writestr(zipfile.ZipInfo(name, _EPOCH), content)
            folders = {_CONVERTED: converted.files if converted else {}}
            folders[_REFERENCE] = known.files() if known else {}
            for folder, files in folders.items():
                for name, content in sorted(files.items()):
                    target.writestr(zipfile.ZipInfo(f"{folder}{name}", _EPOCH), content)


def load(path: Path, allow_code: bool = False) -> tuple[keras.Model, Card]:
    """Read a classifier that `save` wrote.

    Args:
        path: Of the file.
        allow_code: Whether code in it may run: where it came from this project or its
            registry, or somebody said so.

    Raises:
        InputError: The file is missing, holds no card, or holds code that may not run.
    """
    import keras

    card = read_card(path)
    insist_on_trust(path, card, allow_code)
    for package in packages(path):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{path} holds layers of {_PACKAGES[package]}, not installed: pip install "
                f"{_PACKAGES[package]}"
            )
        importlib.import_module(package)  # which makes its layers known to Keras
    with runtime.quiet_building():
        model = keras.saving.load_model(path, compile=False, safe_mode=not card.allow_code)
    return model, card


def packages(path: Path) -> list[str]:
    """The packages beside Keras whose layers a model file holds."""
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json").decode()
    return [name for name in _PACKAGES if f'"{name}.' in config]


def insist_on_trust(path: Path, card: Card, allow_code: bool) -> None:
    """Stop at a file with code that may not run.

    Raises:
        InputError: It holds some.
    """
    if card.allow_code and not allow_code:
        raise InputError(
            f"{path} holds code, which is not run unasked: if you trust the file, add --allow-code"
        )


def forward(path: Path, card: Card, model: Callable[[], keras.Model]) -> Forward:
    """The forward pass of a classifier, which does not need TensorFlow unless Keras computes.

    It gives (N, K + D): probabilities, then what the head sees.

    Args:
        path: Of the file.
        card: That is in it.
        model: Gives the network in it.

    Raises:
        InputError: Its engine is not installed.
    """
    if card.engine is None:
        from pipeline.networks.keras_forward import KerasForward

        return KerasForward(heads.with_features(model()), card.batch_size)
    return engines.load(Converted(**card.engine, files=_folder(path, _CONVERTED)), card.threads)


def known(path: Path) -> Reference:
    """The images that a classifier was made with, which its predictions are compared with.

    Raises:
        InputError: The file holds none, so that fine-tuning has not written it.
    """
    files = _folder(path, _REFERENCE)
    if not files:
        raise InputError(
            f"{path} holds nothing about the images that it was trained on: it is not a finished "
            "model of this pipeline; use outputs/finetune/model.keras, which dvc repro makes"
        )
    return reference.read(files)


def _folder(path: Path, folder: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.startswith(folder)]
        return {name.removeprefix(folder): file.read(name) for name in names}


def read_card(path: Path) -> Card:
    """Read a classifier's card alone; needs no TensorFlow."""
    if not path.is_file():
        raise InputError(
            f"the model must be a .keras file, got {path}: no such file; run dvc repro"
        )
    try:
        with zipfile.ZipFile(path) as file:
            card = json.loads(file.read("metadata.json")).get("classifier")
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"the model must be a .keras file, {path} is not: {error}") from error
    if card is None:
        raise InputError(
            f"{path} holds a network but no class names: it is not a model of this pipeline"
        )
    return Card(**{**card, "decoding": Decoding.from_json(card["decoding"])})


def _metadata(content: bytes, card: Card | None) -> bytes:
    kept: dict[str, Any] = {"keras_version": json.loads(content)["keras_version"]}
    if card is not None:
        kept["classifier"] = asdict(card)
    return json.dumps(kept, sort_keys=True).encode()


def _config(content: bytes) -> bytes:
    """Leave out how it was compiled, and number shared objects in order of appearance."""
    config = json.loads(content)
    config.pop("compile_config", None)
    numbers: dict[int, int] = {}

    def renumber(value: Any) -> None:
        if isinstance(value, dict):
            if "shared_object_id" in value:
                old = value["shared_object_id"]
                value["shared_object_id"] = numbers.setdefault(old, len(numbers))
            for inner in value.values():
                renumber(inner)
        elif isinstance(value, list):
            for inner in value:
                renumber(inner)

    renumber(config)
    return json.dumps(config).encode()
