"""What a folder of pictures means: classes, or splits of classes.

folder -> pictures with label and split. What could mean two things stops, naming the folders.
"""

import fnmatch
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake.sources import Picture

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_ENDING = re.compile(r"[ _-]?(set|data|images|pictures|folder|split)$")
# Made by file servers, archivers, systems and editors; hidden ones begin with a dot.
_SYSTEM = {
    *("@eadir", "#recycle", "__macosx", "$recycle.bin", "system volume information"),
    *("lost+found", "thumbs.db", "desktop.ini", "ehthumbs.db", "__pycache__", "icon\r"),
}
_PICTURES = {
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".qoi", ".sgi", ".tif", ".tiff", ".webp"),
}


def split_of(name: str) -> str | None:
    """The split that a folder's name or a csv's word means: `training_set` is train."""
    return _SPLITS.get(_ENDING.sub("", name.strip().lower()))


def walk(root: Path, renames: Mapping[str, str], ignore: Sequence[str]) -> Iterator[Picture]:
    """Yield the pictures below a folder, sorted by path.

    A picture that lies in no class folder has an empty label.

    Args:
        root: Folder of classes, or of splits of classes.
        renames: Folder name, or given split -> the split it is used as.
        ignore: Patterns of names, or of paths below `root`, that are left out.

    Raises:
        InputError: `root` is missing, or could mean two things.
    """
    if not root.is_dir():
        raise InputError(
            f"data path must be a folder of class folders, got {root}, which "
            f"{'is a file' if root.exists() else 'does not exist'}: set data.path to the folder"
        )
    kept = _Kept(root, ignore)
    tops = kept.folders(root)
    splits = {top: used for top in tops if (used := _used_as(top.name, renames))}
    if any(kept.folders(top) for top in splits):
        _refuse_beside(kept, splits, [top for top in tops if top not in splits])
        yield from kept.loose(root)
        for top, used in splits.items():
            yield from kept.loose(top)
            for folder in kept.folders(top):
                yield from kept.of_class(folder, used)
        return
    _refuse_alike(kept, tops)
    yield from kept.loose(root)
    for folder in tops:
        yield from kept.of_class(folder, None)


def unwrapped(folder: Path, ignore: Sequence[str]) -> Path:
    """The folder of classes or splits: many archives wrap it in a folder of their own name.

    Args:
        folder: Where to begin.
        ignore: As for `walk`.
    """
    if not folder.is_dir():
        return folder
    kept = _Kept(folder, ignore)
    inside = kept.folders(folder)
    while len(inside) == 1:
        deeper = kept.folders(inside[0])
        if not deeper or split_of(inside[0].name) or any(kept.loose(folder)):
            break
        folder, inside = inside[0], deeper
    return folder


class _Kept:
    """What of a folder counts."""

    def __init__(self, root: Path, ignore: Sequence[str]) -> None:
        self.root, self._ignore = root, ignore

    def folders(self, folder: Path) -> list[Path]:
        """The folders in a folder, sorted."""
        return sorted(path for path in folder.iterdir() if path.is_dir() and self._counts(path))

    def loose(self, folder: Path) -> Iterator[Picture]:
        """Pictures that lie beside the class folders: without a label they are in no split."""
        for path in sorted(folder.iterdir()):
            if self._counts(path) and not path.is_dir() and _looks_like_one(path):
                yield self._picture(path, "", None)

    def of_class(self, folder: Path, split: str | None) -> Iterator[Picture]:
        """All files of a class, whatever their names and however deep; dead links, too."""
        for path in self.files(folder):
            yield self._picture(path, names.label(folder.name), split)

    def files(self, folder: Path) -> Iterator[Path]:
        """All files below a folder, sorted."""
        paths = []
        for parent, inner, files in os.walk(folder):
            inner[:] = [name for name in inner if self._counts(Path(parent, name))]
            paths += [path for name in files if self._counts(path := Path(parent, name))]
        yield from sorted(paths, key=attrgetter("parts"))  # the order of Path, but faster

    def _picture(self, path: Path, label: str, split: str | None) -> Picture:
        inside = path.relative_to(self.root).as_posix()
        return Picture(names.shown(inside), label, split, path)

    def _counts(self, path: Path) -> bool:
        if path.name.startswith(".") or path.name.lower() in _SYSTEM:
            return False
        if not self._ignore:  # what follows takes a second of 100,000 files
            return True
        inside = path.relative_to(self.root).as_posix()
        return not any(
            one == pattern or fnmatch.fnmatch(one, pattern)
            for pattern in self._ignore
            for one in (path.name, inside)
        )


def _used_as(name: str, renames: Mapping[str, str]) -> str | None:
    """The split that a folder is used as, or None if its name means none."""
    given = renames.get(name) or split_of(name)
    used = renames.get(given, given) if given else None
    if used is not None and used not in ("train", "val", "test"):
        key = name if name in renames else given
        raise InputError(f"data.splits maps to train, val or test, got {key}: {used}")
    return used


def _refuse_beside(kept: _Kept, splits: Mapping[Path, str], others: Sequence[Path]) -> None:
    """Stop at folders with pictures beside train/ and the like: are they classes, or a copy?"""
    for other in others:
        count = sum(_looks_like_one(path) for path in kept.files(other))
        if not count:
            continue  # models, notes and the like
        inner = {split_of(folder.name) for folder in kept.folders(other)} - {None}
        what = "which holds the same splits again" if inner else "which is no split"
        left_out = names.added("data.ignore", other.name)
        remedy = f"leave it out with {left_out} (init --ignore {shlex.quote(other.name)})"
        if not inner:
            used = names.mapped("data.splits", {other.name: "test"})
            remedy += f", or say what it is with {used}"
        raise InputError(
            f"{kept.root} has the splits {_list(splits)}, and beside them {other.name}/ with "
            f"{count} pictures, {what}: {remedy}"
        )


def _refuse_alike(kept: _Kept, tops: Sequence[Path]) -> None:
    """Stop at folders that hold the same sub-folders: they are splits under other names."""
    inner = {top: tuple(path.name for path in kept.folders(top)) for top in tops}
    first = next(iter(inner.values()), ())
    if len(tops) > 1 and len(first) > 1 and all(one == first for one in inner.values()):
        raise InputError(
            f"{_list(tops)} in {kept.root} all hold {', '.join(first[:3])}: as classes they "
            "would be told apart by nothing; if they are splits, say so with "
            f"{names.mapped('data.splits', {tops[0].name: 'train', tops[1].name: 'test'})}"
        )


def _looks_like_one(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES


def _list(folders: Sequence[Path] | Mapping[Path, str]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)
