"""Cross-validation: prepared images with other splits.

output of prepare -> the same images, with train and val reassigned.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data import manifest
from pipeline.data.manifest import KEPT, Manifest
from pipeline.errors import InputError
from pipeline.storage import arrays, outputs, workspace
from pipeline.storage.digests import file_sha256

_REASSIGNED = ("train", "val")
_SAME = ("classes.txt", "summary.json")


def check(folds: int, group: str | None) -> None:
    """Stop if folds would separate images that belong together.

    Raises:
        InputError: There are groups, which a prepared dataset does not record.
    """
    if folds > 1 and group:
        raise InputError(
            f"sweep.folds={folds} would separate the groups of data.group={group}: set "
            "sweep.folds=1 to use the validation split"
        )


def split(prepared: Path, fold: int, folds: int, seed: int) -> Path:
    """Create prepared images in which one fold of train and val is val, and the rest is train."""
    key = {
        "manifest": file_sha256(prepared / "manifest.csv"),
        "images": Manifest(prepared).images_sha256,
        "fold": fold,
        "folds": folds,
        "seed": seed,
    }
    folder = workspace.work("folds", key)
    return outputs.made(folder, lambda aside: _write(prepared, aside, fold, folds, seed))


def _write(prepared: Path, out: Path, fold: int, folds: int, seed: int) -> None:
    data = Manifest(prepared)
    arrays.share(prepared / "images.npy", out / "images.npy")
    for name in _SAME:
        shutil.copyfile(prepared / name, out / name)
    held_out = _held_out(data, fold, folds, seed)
    reassigned = [
        replace(row, split="val" if place in held_out else "train")
        if row.split in _REASSIGNED
        else row
        for place, row in enumerate(data.rows)
    ]
    others = [r for r in manifest.read_rows(prepared / "manifest.csv") if r.verdict not in KEPT]
    manifest.write_rows(out / "manifest.csv", [*reassigned, *others])


def _held_out(data: Manifest, fold: int, folds: int, seed: int) -> set[int]:
    """Select the rows of a fold, stratified by class, with copies kept together."""
    from sklearn.model_selection import StratifiedGroupKFold

    rows = np.concatenate([data.indices(name) for name in _REASSIGNED])
    least = np.bincount(data.strata[rows]).min()
    if least < folds:
        raise InputError(
            f"sweep.folds={folds} needs as many images of each class in train and val, but one "
            f"class has {least}: set sweep.folds={max(1, least)}"
        )
    copies = [hashlib.sha256(data.images[row].tobytes()).hexdigest() for row in rows]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(splitter.split(rows, data.strata[rows], copies))
    return {int(row) for row in rows[parts[fold][1]]}
