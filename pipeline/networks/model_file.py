"""The classifier on disk: one .keras file, the same bytes for the same weights.

Keras model + class names + decoding <-> model.keras, which also holds the network converted for
its engine, and reference data for its answers. Keras' own files differ between two saves (dates,
zip times, ids that are memory addresses); these do not.
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

from pipeline.data import tasks
from pipeline.data.decoding import Decoding
from pipeline.data.tasks import Task
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
"""Folders in the file that Keras ignores."""
_PACKAGES = {"keras_hub": "keras-hub"}
"""Module with layers besides Keras' own -> its distribution."""


@dataclass(frozen=True)
class Card:
    """A classifier's metadata, stored inside the .keras file.

    Attributes:
        classes: Class names, in the order of the outputs.
        image_size: Side of the images in px.
        decoding: Settings for decoding images.
        batch_size: Rows of a forward pass; the last bits of results depend on it.
        threads: Threads inside an operation; likewise.
        allow_code: True if its backbone may contain code (Lambda layers).
        task: Name of the task.
        engine: Name, version and precision of the engine; None for Keras.
    """

    classes: list[str]
    image_size: int
    decoding: Decoding
    batch_size: int
    threads: int
    allow_code: bool = False
    engine: dict[str, str] | None = None
    task: str = tasks.DEFAULT

    @property
    def predicts(self) -> Task:
        """What the model predicts."""
        return tasks.named(self.task)


def save(
    model: keras.Model,
    path: Path,
    card: Card | None = None,
    converted: Converted | None = None,
    reference_data: Reference | None = None,
) -> None:
    """Write a model, replacing `path` at the end.

    Args:
        model: A Keras model; how it was compiled is not stored.
        path: Ends in .keras.
        card: Stored in the file's metadata, which Keras ignores.
        converted: The same network for another engine, with its features.
        reference_data: Statistics of the images it was trained on.
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
            folders[_REFERENCE] = reference_data.files() if reference_data else {}
            for folder, files in folders.items():
                for name, content in sorted(files.items()):
                    target.writestr(zipfile.ZipInfo(f"{folder}{name}", _EPOCH), content)


def load(path: Path, allow_code: bool = False) -> tuple[keras.Model, Card]:
    """Read a classifier written by `save`.

    Args:
        path: The file.
        allow_code: Let code in it run: if it came from this project or its registry, or the user
            allows it.

    Raises:
        InputError: The file is missing, has no card, or contains code that may not run.
    """
    import keras

    card = read_card(path)
    insist_on_trust(path, card, allow_code)
    for package in packages(path):
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"{path} needs {_PACKAGES[package]}, which is not installed: pip install "
                f"{_PACKAGES[package]}"
            )
        importlib.import_module(package)  # registers its layers with Keras
    with runtime.quiet_building():
        model = keras.saving.load_model(path, compile=False, safe_mode=not card.allow_code)
    return model, card


def packages(path: Path) -> list[str]:
    """List the packages besides Keras whose layers a model file contains."""
    with zipfile.ZipFile(path) as file:
        config = file.read("config.json").decode()
    return [name for name in _PACKAGES if f'"{name}.' in config]


def insist_on_trust(path: Path, card: Card, allow_code: bool) -> None:
    """Stop at a file with code that may not run.

    Raises:
        InputError: It contains code.
    """
    if card.allow_code and not allow_code:
        raise InputError(
            f"{path} contains code, which is not run by default: if you trust the file, add "
            "--allow-code"
        )


def forward(path: Path, card: Card, model: Callable[[], keras.Model]) -> Forward:
    """Create the forward pass of a classifier; TensorFlow is only needed if Keras computes.

    It returns (N, K + D): probabilities, then features.

    Args:
        path: The file.
        card: Its card.
        model: Returns its network.

    Raises:
        InputError: Its engine is not installed.
    """
    if card.engine is None:
        from pipeline.networks.keras_forward import KerasForward

        return KerasForward(heads.with_features(model()), card.batch_size)
    return engines.load(Converted(**card.engine, files=_folder(path, _CONVERTED)), card.threads)


def reference_of(path: Path) -> Reference:
    """Read the statistics of the images that a classifier was trained on.

    Raises:
        InputError: The file has none, so fine-tuning did not write it.
    """
    files = _folder(path, _REFERENCE)
    if not files:
        raise InputError(
            f"{path} has no reference data for its training images, so it is not a finished model "
            "of this pipeline: use outputs/finetune/model.keras, which dvc repro writes"
        )
    return reference.read(files)


def thresholds_of(path: Path) -> list[float]:
    """Read what decides a classifier's answers; empty if nothing does."""
    files = _folder(path, _REFERENCE)
    return reference.read(files).thresholds.tolist() if files else []


def _folder(path: Path, folder: str) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        names = [name for name in file.namelist() if name.startswith(folder)]
        return {name.removeprefix(folder): file.read(name) for name in names}


def read_card(path: Path) -> Card:
    """Read only a classifier's card; needs no TensorFlow."""
    if not path.is_file():
        raise InputError(f"no model at {path}: run dvc repro first, or name another .keras file")
    try:
        with zipfile.ZipFile(path) as file:
            card = json.loads(file.read("metadata.json")).get("classifier")
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"the model must be a .keras file, {path} is not: {error}") from error
    if card is None:
        raise InputError(
            f"{path} is a network without class names: it is not a model of this pipeline"
        )
    return Card(**{**card, "decoding": Decoding.from_json(card["decoding"])})


def _metadata(content: bytes, card: Card | None) -> bytes:
    metadata: dict[str, Any] = {"keras_version": json.loads(content)["keras_version"]}
    if card is not None:
        described = {name: value for name, value in asdict(card).items() if name != "task"}
        metadata["classifier"] = described | tasks.recorded(card.predicts)
    return json.dumps(metadata, sort_keys=True).encode()


def _config(content: bytes) -> bytes:
    """Drop the compile config, and number shared objects in order of appearance."""
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
