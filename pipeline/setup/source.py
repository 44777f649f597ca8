"""A first look at a source: its kind, classes, sizes, splits and faults.

path -> section `data` with reasons, `Survey`, and in words what it found.
"""

import importlib
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.data.decoding import Decoding, Fit
from pipeline.data.manifest import KEPT, SPLITS, Row
from pipeline.errors import InputError
from pipeline.intake import layout, soundness, sources
from pipeline.intake.account import Account
from pipeline.intake.judging import judge
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.intake.splitting import Shares, assign
from pipeline.settings import check
from pipeline.storage.digests import file_sha256

SHARES = Shares(None, None, 0.7, 0.15)
"""How prepare splits unless told otherwise."""
_THUMBNAIL_PX = 32
_UNEVEN = 3
_SHOWN = 20


@dataclass(frozen=True)
class Survey:
    """What a source holds, split as prepare would.

    Attributes:
        rows: A row an image, with split and verdict.
        reasons: Path -> why a file is not used.
        account: Where every file went.
        given: The splits that the source itself names.
    """

    rows: list[Row]
    reasons: dict[str, str]
    account: Account
    given: tuple[str, ...]

    @property
    def kept(self) -> list[Row]:
        """The images that can be used."""
        return [row for row in self.rows if row.verdict in KEPT]

    def count(self, split: str) -> int:
        """How many images a split has."""
        return sum(row.split == split for row in self.kept)

    @property
    def classes(self) -> dict[str, int]:
        """Class -> images, sorted by name."""
        return dict(sorted(Counter(row.label for row in self.kept).items()))

    @property
    def imbalance(self) -> float:
        """How many times the largest class is the smallest."""
        sizes = self.classes.values()
        return max(sizes) / min(sizes) if sizes else 1.0


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


def look(
    path: Path, ignore: list[str], seed: int, given: Mapping[str, Any] | None = None
) -> Looked:
    """Look at a folder of images, a csv file or an archive.

    Args:
        path: Of the source.
        ignore: What is left out.
        seed: Of the splits.
        given: Further settings of section `data`.

    Raises:
        InputError: It is none of these, or holds no images of two classes.
    """
    settings = _recognised(path, ignore) | ({"ignore": ignore} if ignore else {})
    settings |= given or {}
    config = _config(settings)
    left_out: list[Sample] = []
    listed = list(sources.images(config, "list", left_out))
    reasons: dict[str, str] = {}
    named = {image.split for image in listed if image.split}
    if named == {"train", "val"}:
        settings["splits"] = {**settings.get("splits", {}), "val": "test"}
        reasons["splits"] = "no test/ is given: val/ is the test split, and val is drawn from train"
        config = _config(settings)
        listed = [replace(one, split="test") if one.split == "val" else one for one in listed]
    surveyed = replace(survey(listed, left_out, config.ignore, seed), given=tuple(sorted(named)))
    _check(path, surveyed)
    return Looked(settings, reasons, config, surveyed)


def _recognised(path: Path, ignore: list[str]) -> dict[str, Any]:
    if path.is_dir():
        return {"use": "folder", "path": layout.unwrapped(path, ignore).as_posix()}
    if not path.is_file():
        raise InputError(
            f"init needs a folder of images, a csv file or an archive, got {path}: no such file "
            "or folder"
        )
    if tarfile.is_tarfile(path) or zipfile.is_zipfile(path):
        return {"use": "archive", "path": path.as_posix(), "sha256": file_sha256(path)}
    if path.suffix.lower() == ".csv":
        return {"use": "csv", "path": path.as_posix()}
    raise InputError(
        f"init needs a folder of images, a csv file or a .zip or .tar archive, got {path}: name "
        "the folder that holds a sub-folder for each class"
    )


def _config(settings: dict[str, Any]) -> SourceConfig:
    module = importlib.import_module(f"{sources.__name__}.{settings['use']}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(module.Config), settings)
        config: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise InputError(f"section data: {str(error).splitlines()[0]}") from error
    assert isinstance(config, SourceConfig)
    check(config, "data")
    return config


def _check(path: Path, found: Survey) -> None:
    if not found.rows:
        raise InputError(
            f"{path} must hold images in a folder for each class, such as {path}/cat/1.jpg, and "
            "holds none: name the folder above the class folders"
        )
    soundness.check_vanished(found.rows, found.reasons)
    soundness.check_classes(found.kept)


def survey(
    images: Iterable[Sample], left_out: Sequence[Sample], ignore: Sequence[str], seed: int
) -> Survey:
    """Read and decode every image, and split them; keeps no pixels.

    Args:
        images: Of a source.
        left_out: The files that are not read.
        ignore: `data.ignore`.
        seed: Chooses the splits that the source does not give.
    """
    rows, bad = [], {}
    for row, verdict in judge(images, _THUMBNAIL_PX, Decoding(Fit.squash), "look"):
        rows.append(row)
        if isinstance(verdict, str):
            bad[row.path] = verdict
    given = {row.split for row in rows if row.split}
    assigned, reasons = assign(rows, bad, SHARES, seed)
    account = Account.of(assigned, left_out, ignore)
    return Survey(assigned, reasons, account, tuple(split for split in SPLITS if split in given))


def describe(found: Survey) -> Iterator[str]:
    """Tell a survey, a line at a time."""
    classes = found.classes
    yield str(found.account)
    yield f"{len(found.kept)} images of {len(classes)} classes"
    width = max(map(len, list(classes)[:_SHOWN]), default=0)
    for name, count in list(classes.items())[:_SHOWN]:
        yield f"  {name:{width}}  {count}"
    if len(classes) > _SHOWN:
        yield f"  and {len(classes) - _SHOWN} more classes"
    if found.imbalance >= _UNEVEN:
        yield (
            f"  uneven: the largest class has {found.imbalance:.1f} times the images of the "
            "smallest, so look at macro_f1 beside accuracy"
        )
    if found.kept:
        shorter = np.array([min(row.width, row.height) for row in found.kept])
        low, middle, high = np.percentile(shorter, [5, 50, 95])
        yield (
            f"sizes: the shorter side is {middle:.0f} px (median; 90 % are {low:.0f} to {high:.0f})"
        )
    if found.given:
        yield f"splits in the source: {', '.join(found.given)}"
    else:
        yield "splits in the source: none, so they are drawn at random, class by class"
    for column in found.kept[0].extra if found.kept else ():
        values = {row.extra[column] for row in found.kept}
        if len(SPLITS) <= len(values) <= len(found.kept) / 2:
            yield (
                f"column {column} has {len(values)} values: data.group={column} would bring the "
                "images of each into one split"
            )
    yield "split: " + ", ".join(f"{found.count(split)} {split}" for split in SPLITS)
    duplicates = sum(row.verdict == "duplicate" for row in found.rows)
    if duplicates:
        yield f"copies of another image, pixel for pixel: {duplicates}; each stays in its split"
    if found.reasons:
        yield f"{len(found.reasons)} files are not used:"
        for path, reason in list(found.reasons.items())[:5]:
            yield f"  {path}: {reason}"
        if len(found.reasons) > 5:
            yield f"  and {len(found.reasons) - 5} more, which prepare lists in quarantine.csv"
