"""Which kind of source a path is, and what is in it.

path -> section `data` with reasons, `Survey`.
"""

import importlib
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.intake import layout, soundness, sources
from pipeline.intake import survey as surveys
from pipeline.intake.sources import SourceConfig
from pipeline.intake.splitting import Shares
from pipeline.intake.survey import Survey
from pipeline.storage.digests import file_sha256

SHARES = Shares(None, None, 0.7, 0.15)
"""How prepare splits unless told otherwise."""


@dataclass(frozen=True)
class Looked:
    """A source after a first look.

    Attributes:
        settings: Of section `data`.
        reasons: Setting -> why it has this value, where that is worth a word.
        config: The section itself.
        survey: What is in it, split as prepare will.
    """

    settings: dict[str, Any]
    reasons: dict[str, str]
    config: SourceConfig
    survey: Survey


def look(path: Path, ignore: list[str], seed: int) -> Looked:
    """Look at a folder of pictures, a csv file or an archive.

    Args:
        path: Of the source.
        ignore: What is left out.
        seed: Of the splits.

    Raises:
        InputError: It is none of these, or holds no pictures of two classes.
    """
    settings = _recognised(path, ignore) | ({"ignore": ignore} if ignore else {})
    config = _config(settings)
    listed = list(sources.pictures(config, "list"))
    reasons: dict[str, str] = {}
    given = {picture.split for picture in listed if picture.split}
    if given == {"train", "val"}:
        settings["splits"] = {"val": "test"}
        reasons["splits"] = "no test/ is given: val/ is the test split, and val is drawn from train"
        config = _config(settings)
        listed = [replace(one, split="test") if one.split == "val" else one for one in listed]
    surveyed = replace(surveys.survey(listed, SHARES, seed), given=tuple(sorted(given)))
    _check(path, surveyed)
    return Looked(settings, reasons, config, surveyed)


def _recognised(path: Path, ignore: list[str]) -> dict[str, Any]:
    if path.is_dir():
        return {"use": "folder", "path": layout.unwrapped(path, ignore).as_posix()}
    if not path.is_file():
        raise InputError(
            f"init needs a folder of pictures, a csv file or an archive, got {path}: no such file "
            "or folder"
        )
    if tarfile.is_tarfile(path) or zipfile.is_zipfile(path):
        return {"use": "archive", "path": path.as_posix(), "sha256": file_sha256(path)}
    if path.suffix.lower() == ".csv":
        return {"use": "csv", "path": path.as_posix()}
    raise InputError(
        f"init needs a folder of pictures, a csv file or a .zip or .tar archive, got {path}: name "
        "the folder that holds a sub-folder for each class"
    )


def _config(settings: dict[str, Any]) -> SourceConfig:
    module = importlib.import_module(f"{sources.__name__}.{settings['use']}")
    given = {"url": settings["path"], **settings} if settings["use"] == "archive" else settings
    config: SourceConfig = module.Config(**given)
    return config


def _check(path: Path, found: Survey) -> None:
    if not found.rows:
        raise InputError(
            f"{path} must hold pictures in a folder for each class, such as {path}/cat/1.jpg, and "
            "holds none: name the folder above the class folders"
        )
    soundness.check_vanished(found.rows, found.reasons)
    soundness.check_classes(found.kept)
