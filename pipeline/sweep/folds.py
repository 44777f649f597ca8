"""Cross-validation: prepared images with other splits.

output of prepare -> the same images, those of train and val dealt anew.
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

_DEALT = ("train", "val")
_SAME = ("classes.txt", "summary.json")


def check(folds: int, group: str | None) -> None:
    """Stop where images that belong together would be torn apart.

    Args:
        folds: How many.
        group: `data.group`.

    Raises:
        InputError: There are groups, which a prepared data set does not record.
    """
    if folds > 1 and group:
        raise InputError(
            f"sweep.folds={folds} would tear apart the groups of data.group={group}: set "
            "sweep.folds=1, to judge on the validation split"
        )


def split(prepared: Path, fold: int, folds: int, seed: int) -> Path:
    """Prepared images in which one part of train and val is val, and the rest is train.

    Args:
        prepared: Output of prepare.
        fold: Which part.
        folds: How many there are.
        seed: Deals them.
    """
    key = {
        "manifest": file_sha256(prepared / "manifest.csv"),
        "images": Manifest(prepared).images_sha256,
        "fold": fold,
        "folds": folds,
        "seed": seed,
    }
    folder = workspace.work("folds", key)
    with outputs.locked(folder):
        if not folder.exists():
            with outputs.replacing(folder) as aside:
                _write(prepared, aside, fold, folds, seed)
    return folder


def _write(prepared: Path, out: Path, fold: int, folds: int, seed: int) -> None:
    data = Manifest(prepared)
    arrays.share(prepared / "images.npy", out / "images.npy")
    for name in _SAME:
        shutil.copyfile(prepared / name, out / name)
    judged = _judged_on(data, fold, folds, seed)
    dealt = [
        replace(row, split="val" if place in judged else "train") if row.split in _DEALT else row
        for place, row in enumerate(data.rows)
    ]
    others = [r for r in manifest.read_rows(prepared / "manifest.csv") if r.verdict not in KEPT]
    manifest.write_rows(out / "manifest.csv", [*dealt, *others])


def _judged_on(data: Manifest, fold: int, folds: int, seed: int) -> set[int]:
    """Rows of one part; each has its share of every class, and copies stay together."""
    from sklearn.model_selection import StratifiedGroupKFold

    rows = np.concatenate([data.indices(name) for name in _DEALT])
    least = np.bincount(data.labels[rows]).min()
    if least < folds:
        raise InputError(
            f"sweep.folds={folds} needs as many images of each class in train and val, a class "
            f"has {least}: set sweep.folds={max(1, least)}"
        )
    copies = [hashlib.sha256(data.images[row].tobytes()).hexdigest() for row in rows]
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(dealer.split(rows, data.labels[rows], copies))
    return {int(row) for row in rows[parts[fold][1]]}
