"""Survey a source: its kind, classes, sizes, splits and faults.

path -> section `data` with reasons, `Survey`, and a description.
"""

import importlib
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.data import tasks
from pipeline.data.decoding import Decoding, Fit
from pipeline.data.manifest import KEPT, SPLITS, Row
from pipeline.data.tasks import Task
from pipeline.errors import InputError
from pipeline.intake import layout, soundness, sources
from pipeline.intake.account import Account
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.intake.splitting import Shares, assign
from pipeline.settings import check
from pipeline.storage.digests import file_sha256

SHARES = Shares(None, None, 0.7, 0.15)
"""Default splits of prepare."""
_THUMBNAIL_PX = 32
UNEVEN = 3
"""Ratio of class sizes above which classes are imbalanced."""
_MAX_LISTED = 20


@dataclass(frozen=True)
class Survey:
    """Content of a source, split as prepare would.

    Attributes:
        rows: One row per image, with split and verdict.
        reasons: Path -> why a file is not used.
        account: Account of every file.
        splits: The splits that the source itself assigns.
        task: What is predicted.
    """

    rows: list[Row]
    reasons: dict[str, str]
    account: Account
    splits: tuple[str, ...]
    task: Task

    @property
    def used(self) -> list[Row]:
        """The images that can be used."""
        return [row for row in self.rows if row.verdict in KEPT]

    def count(self, split: str) -> int:
        """Count the images in a split."""
        return sum(row.split == split for row in self.used)

    @property
    def classes(self) -> dict[str, int]:
        """Class -> images, sorted by name."""
        names = (name for row in self.used for name in self.task.names(row.label))
        return dict(sorted(Counter(names).items()))

    @property
    def imbalance(self) -> float:
        """Ratio of the largest to the smallest class."""
        sizes = self.classes.values()
        return max(sizes) / min(sizes) if sizes else 1.0


@dataclass(frozen=True)
class Looked:
    """A surveyed source.

    Attributes:
        settings: Settings of section `data`.
        reasons: Setting -> reason, if it needs one.
        config: The section itself.
        survey: Its content, split as prepare will.
    """

    settings: dict[str, Any]
    reasons: dict[str, str]
    config: SourceConfig
    survey: Survey


def look(
    path: Path, ignore: list[str], seed: int, further: Mapping[str, Any] | None = None
) -> Looked:
    """Survey a folder of images, a csv file or an archive.

    Raises:
        InputError: It is none of these, or has no images of two classes.
    """
    settings = recognised(path, ignore) | ({"ignore": ignore} if ignore else {})
    settings |= further or {}
    config = config_of(settings)
    left_out: list[Sample] = []
    reasons: dict[str, str] = {}
    chosen = sources.task(config)
    task = tasks.named(str(chosen.value))
    if tasks.recorded(task):
        settings |= tasks.recorded(task)
        reasons["task"] = chosen.reason
    listed = list(sources.images(config, "list", left_out))
    named = {image.split for image in listed if image.split}
    if named == {"train", "val"}:
        settings["splits"] = {**settings.get("splits", {}), "val": "test"}
        reasons["splits"] = (
            "there is no test/: val/ becomes the test split, val is drawn from train"
        )
        config = config_of(settings)
        listed = [replace(item, split="test") if item.split == "val" else item for item in listed]
    rows, bad = [], {}
    how = Decoding(Fit.squash)
    for row, verdict in judge(listed, _THUMBNAIL_PX, how, "look", total=len(listed)):
        rows.append(row)
        if isinstance(verdict, str):
            bad[row.path] = verdict
    rows, unused = assign(rows, bad, SHARES, seed, task)
    account = Account.of(rows, left_out, config.ignore)
    surveyed = Survey(rows, unused, account, tuple(sorted(named)), task)
    _check(path, surveyed)
    return Looked(settings, reasons, config, surveyed)


def recognised(path: Path, ignore: list[str]) -> dict[str, Any]:
    """Return the settings of section `data` that a path means.

    Raises:
        InputError: It is no folder, csv file or archive.
    """
    if path.is_dir():
        return {"use": "folder", "path": layout.unwrapped(path, ignore).as_posix()}
    if not path.is_file():
        raise InputError(
            f"no such file or folder: {path}; name a folder of images, a csv file or an archive"
        )
    if tarfile.is_tarfile(path) or zipfile.is_zipfile(path):
        return {"use": "archive", "path": path.as_posix(), "sha256": file_sha256(path)}
    if path.suffix.lower() == ".csv":
        return {"use": "csv", "path": path.as_posix()}
    raise InputError(
        f"init needs a folder of images, a csv file or a .zip or .tar archive, got {path}: name "
        "the folder with a subfolder for each class"
    )


def config_of(settings: dict[str, Any]) -> SourceConfig:
    """Return section `data` for some of its settings.

    Raises:
        InputError: A setting is unknown or has a wrong value.
    """
    module = importlib.import_module(f"{sources.__name__}.{settings['use']}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(module.Config), settings)
        config: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(f"section data: {str(error).splitlines()[0]}") from error
    assert isinstance(config, SourceConfig)
    check(config, "data")
    return config


def _check(path: Path, result: Survey) -> None:
    if not result.rows and path.suffix == ".csv":
        raise InputError(f"no images of {path} can be used: {result.account}")
    if not result.rows:
        raise InputError(
            f"no images in class folders such as {path}/cat/1.jpg: name the folder above the "
            "class folders"
        )
    soundness.check_vanished(result.rows, result.reasons, result.task)
    soundness.check_classes(result.used, result.task, result.task.noun)


def describe(result: Survey) -> Iterator[str]:
    """Describe a survey, line by line."""
    classes = result.classes
    yield str(result.account)
    kinds = f" of {len(classes)} {result.task.noun}" if classes else f" with {result.task.noun}"
    yield f"{len(result.used)} images{kinds}"
    width = max(map(len, list(classes)[:_MAX_LISTED]), default=0)
    for name, count in list(classes.items())[:_MAX_LISTED]:
        yield f"  {name:{width}}  {count}"
    if len(classes) > _MAX_LISTED:
        yield f"  and {len(classes) - _MAX_LISTED} more classes"
    if result.imbalance >= UNEVEN and not result.task.several:
        yield (
            f"  imbalanced: the largest class has {result.imbalance:.1f} times as many images as "
            "the smallest; look at macro F1 as well as accuracy"
        )
    if result.used:
        shorter = np.array([min(row.width, row.height) for row in result.used])
        low, middle, high = np.percentile(shorter, [5, 50, 95])
        yield (
            f"image sizes: shorter side {middle:.0f} px (median; 90 % are {low:.0f} to {high:.0f})"
        )
    if result.splits:
        yield f"splits in the source: {', '.join(result.splits)}"
    else:
        unit = "groups" if any(row.group for row in result.used) else "images"
        yield f"splits in the source: none, {unit} are drawn at random"
    for column in result.used[0].extra if result.used else ():
        values = {row.extra[column] for row in result.used}
        grouped = all(row.extra[column] == row.group for row in result.used)
        if len(SPLITS) <= len(values) <= len(result.used) / 2 and not grouped:
            yield (
                f"column {column} has {len(values)} values: set data.group={column} if images "
                "with the same value belong together"
            )
    yield "split: " + ", ".join(f"{result.count(split)} {split}" for split in SPLITS)
    duplicates = sum(row.verdict == "duplicate" for row in result.rows)
    if duplicates:
        yield f"copies of other images: {duplicates}; copies stay in the same split"
    if result.reasons:
        yield f"files not used: {len(result.reasons)}"
        for path, reason in list(result.reasons.items())[:5]:
            yield f"  {path}: {reason}"
        if len(result.reasons) > 5:
            yield f"  and {len(result.reasons) - 5} more, which prepare lists in quarantine.csv"
