"""Interpret a folder of images: class folders, or splits with class folders.

folder -> images with label and split, and every other file with the reason why it is left out.
Ambiguous layouts stop with an error that names the folders.
"""

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from pipeline.data import names
from pipeline.errors import InputError
from pipeline.intake.sources import IGNORED, Sample, matches

_SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_CLASS = "class"
"""Value of data.splits for a class folder whose name looks like a split."""
_ENDING = re.compile(r"[ _-]?(set|data|images|pictures|folder|split)$")
# Created by file servers, archivers, systems and editors; hidden files begin with a dot.
_SYSTEM = {
    *("@eadir", "#recycle", "__macosx", "$recycle.bin", "system volume information"),
    *("lost+found", "thumbs.db", "desktop.ini", "ehthumbs.db", "__pycache__", "icon\r"),
}
_IMAGES = {
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".ico", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".qoi", ".sgi", ".tif", ".tiff", ".webp"),
}
_HIDDEN, _SYSTEMS = "hidden", "created by the operating system"
_LOOSE, _OTHER = "in no class folder", "not an image, in no class folder"
_LINK_BACK = "a linked folder that was already read, or that contains its class"
_EMPTY = "an empty class folder"


def is_system(path: Path) -> bool:
    """Check if a file or folder is hidden, or was made by an operating system."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM


def split_of(name: str) -> str | None:
    """Return the split that a folder's name or a csv's word means: `training_set` is train."""
    return _SPLITS.get(_ENDING.sub("", name.strip().lower()))


def walk(root: Path, renames: Mapping[str, str], ignore: Sequence[str]) -> Iterator[Sample]:
    """Yield every file below a folder: images sorted by path, others with `left_out`.

    Args:
        root: Folder of classes, or of splits with classes, or a folder around it.
        renames: Folder name or split -> the split it is used as; `class` for a class.
        ignore: Patterns of names, or of paths below `root`, to leave out.

    Raises:
        InputError: `root` is missing or ambiguous.
    """
    if not root.is_dir():
        raise InputError(
            f"data.path must be a folder of class folders, got {root}, which "
            f"{'is a file' if root.exists() else 'does not exist'}"
        )
    tree = _Tree(unwrapped(root, ignore), ignore)
    for wrapper in _wrappers(root, tree.root):
        yield from tree.loose(wrapper)
    tops = tree.folders(tree.root)
    splits = _splits(tops, renames)
    yield from tree.loose(tree.root)
    if not any(tree.folders(top) for top in splits):
        _refuse_flat(tree, tops, splits)
        if _CLASS not in renames.values():
            _refuse_identical(tree, tops)
        for folder in tops:
            yield from tree.of_class(folder, None)
        return
    others = [top for top in tops if top not in splits]
    _refuse_unclear(tree, splits, others)
    for other in others:
        yield from tree.left_out(other, "next to the splits, without images")
    for top, used in splits.items():
        inner = tree.inside(top, [each for each in splits if each != top])
        for wrapper in (*_wrappers(top, inner), inner):
            yield from tree.loose(wrapper)
        for folder in tree.folders(inner):
            yield from tree.of_class(folder, used)


def unwrapped(folder: Path, ignore: Sequence[str]) -> Path:
    """Return the folder of classes or splits: archives often wrap it in another folder."""
    if not folder.is_dir():
        return folder
    tree = _Tree(folder, ignore)
    inside = tree.folders(folder)
    while len(inside) == 1:
        deeper = tree.folders(inside[0])
        if not deeper or split_of(inside[0].name) or tree.has_loose(folder):
            break
        folder, inside = inside[0], deeper
    return folder


def _wrappers(outer: Path, inner: Path) -> list[Path]:
    """List the folders from the outer one down to the inner one, without the latter."""
    between = inner.relative_to(outer).parts
    return [outer.joinpath(*between[:depth]) for depth in range(len(between))]


class _Tree:
    """The files below a folder, and which of them to leave out."""

    def __init__(self, root: Path, ignore: Sequence[str]) -> None:
        self.root, self._ignore = root, ignore

    def folders(self, folder: Path) -> list[Path]:
        """List the subfolders that are not left out, sorted."""
        folders = [path for path in folder.iterdir() if path.is_dir()]
        return sorted(path for path in folders if not self._why_folder(path))

    def has_loose(self, folder: Path) -> bool:
        """Check for images directly in a folder."""
        return any(is_image(p) and not p.is_dir() and not self._why(p) for p in folder.iterdir())

    def inside(self, split: Path, others: Sequence[Path]) -> Path:
        """Return the folder of a split's classes: `seg_train/seg_train/` is also train."""
        while len(inner := self.folders(split)) == 1 and not self.has_loose(split):
            siblings = [[path.name for path in self.folders(other)] for other in others]
            is_class = any(inner[0].name in row and len(row) > 1 for row in siblings)
            if is_class or not self.folders(inner[0]):
                break
            split = inner[0]
        return split

    def loose(self, folder: Path) -> Iterator[Sample]:
        """Yield what lies next to class folders: it has no label."""
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                yield self._without(path, self._why(path) or (_LOOSE if is_image(path) else _OTHER))
            elif why := self._why_folder(path):
                yield from self.left_out(path, why)

    def left_out(self, folder: Path, why: str) -> Iterator[Sample]:
        """Yield all files below a folder, with one reason."""
        if why == _LINK_BACK:
            yield self._without(folder, why)
            return
        for parent, _, files in os.walk(folder, onerror=_raise):
            for name in sorted(files):
                yield self._without(Path(parent, name), why)

    def of_class(self, folder: Path, split: str | None) -> Iterator[Sample]:
        """Yield all files of a class, whatever their names and depth, including dead links."""
        label = names.label(folder.name)
        used, others = self._files(folder)
        if not used:
            yield self._without(folder, _EMPTY)
        for path in used:
            yield Sample(self._name(path), label, split, path)
        yield from others

    def count(self, folder: Path) -> int:
        """Count the images below a folder."""
        return sum(map(is_image, self._files(folder)[0]))

    def _files(self, folder: Path) -> tuple[list[Path], list[Sample]]:
        """List the files below a folder, sorted, and what is left out of it.

        Linked folders are read once, and never if they contain this folder: cycles end.
        """
        used: list[Path] = []
        others: list[Sample] = []
        read = {_identity(path) for path in (folder, *folder.resolve().parents)}
        for parent, inner, files in os.walk(folder, followlinks=True, onerror=_raise):
            for name in list(inner):
                path = Path(parent, name)
                if why := self._why_folder(path):
                    others += self.left_out(path, why)
                elif (identity := _identity(path)) in read:
                    others.append(self._without(path, _LINK_BACK))
                else:
                    read.add(identity)
                    continue
                inner.remove(name)
            for name in files:
                path = Path(parent, name)
                if why := self._why(path):
                    others.append(self._without(path, why))
                else:
                    used.append(path)
        return sorted(used, key=attrgetter("parts")), others  # the order of Path, but faster

    def _name(self, path: Path) -> str:
        return names.display(Path(os.path.relpath(path, self.root)).as_posix())

    def _without(self, path: Path, why: str) -> Sample:
        folder = "/" if path.is_dir() and why in (_EMPTY, _LINK_BACK) else ""
        return Sample(self._name(path) + folder, "", None, path, left_out=why)

    def _why_folder(self, path: Path) -> str:
        """Say why a folder is left out; a link to one of its parents is."""
        if why := self._why(path):
            return why
        if path.is_symlink():
            parent = path.parent.resolve()
            if path.resolve() in (parent, *parent.parents):
                return _LINK_BACK
        return ""

    def _why(self, path: Path) -> str:
        """Say why a file or folder is left out; empty if it is not."""
        if path.name.startswith("."):
            return _HIDDEN
        if path.name.lower() in _SYSTEM:
            return _SYSTEMS
        if not self._ignore:  # matching takes a second for 100,000 files
            return ""
        inside = Path(os.path.relpath(path, self.root)).as_posix()
        return IGNORED if any(matches(p, path.name, inside) for p in self._ignore) else ""


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _raise(error: OSError) -> None:
    raise error


def _splits(tops: Sequence[Path], renames: Mapping[str, str]) -> dict[Path, str]:
    """Find the folders that are splits, by their names or by names that differ in a split only."""
    named = {top: used for top in tops if (used := _used_as(top.name, renames))}
    if named:
        return named
    by_pattern: dict[tuple[str, ...], dict[Path, str]] = defaultdict(dict)
    for top in tops:
        words = re.split(r"[ _.-]+", top.name.lower())
        places = [place for place, word in enumerate(words) if word in _SPLITS]
        if len(places) == 1 and top.name not in renames:
            (place,) = places
            split = _SPLITS[words[place]]
            by_pattern[(*words[:place], "", *words[place + 1 :])][top] = renames.get(split, split)
    groups = [group for group in by_pattern.values() if len(set(group.values())) > 1]
    return {top: split for group in groups for top, split in group.items()}


def _used_as(name: str, renames: Mapping[str, str]) -> str | None:
    """Return the split that a folder is used as, or None if it is a class."""
    meant = renames.get(name) or split_of(name)
    used = renames.get(meant, meant) if meant else None
    if used == _CLASS:
        return None
    if used is not None and used not in ("train", "val", "test"):
        key = name if name in renames else meant
        raise InputError(f"data.splits values must be train, val, test or class, got {key}: {used}")
    return used


def _refuse_flat(tree: _Tree, tops: Sequence[Path], splits: Mapping[Path, str]) -> None:
    """Stop at train/ and test/ without class folders: are they classes?"""
    if len(splits) > 1 and len(splits) == len(tops):
        raise InputError(
            f"{_list(splits)} in {tree.root} have no class folders: put the images of each class "
            "into its own folder, or if these are classes, set "
            f"{names.mapped('data.splits', {top.name: _CLASS for top in splits})}"
        )


def _refuse_unclear(tree: _Tree, splits: Mapping[Path, str], others: Sequence[Path]) -> None:
    """Stop at folders with images next to train/ and the like: are they classes, or a copy?"""
    for other in others:
        count = tree.count(other)
        if not count:
            continue  # models, notes and the like
        inner = {split_of(folder.name) for folder in tree.folders(other)} - {None}
        what = "with the same splits again" if inner else "which is not a split"
        left_out = names.added("data.ignore", other.name)
        remedy = f"leave it out with {left_out} (init --ignore {shlex.quote(other.name)})"
        if not inner:
            used = names.mapped("data.splits", {other.name: "test"})
            classes = names.mapped("data.splits", {top.name: _CLASS for top in splits})
            remedy += f", use it as a split with {used}, or if all are classes, set {classes}"
        raise InputError(
            f"{tree.root} has the splits {_list(splits)}, and next to them {other.name}/ with "
            f"{count} images, {what}: {remedy}"
        )


def _refuse_identical(tree: _Tree, tops: Sequence[Path]) -> None:
    """Stop at folders with the same subfolders: they are splits under other names."""
    inner = {top: tuple(path.name for path in tree.folders(top)) for top in tops}
    first = next(iter(inner.values()), ())
    if len(tops) > 1 and len(first) > 1 and all(each == first for each in inner.values()):
        raise InputError(
            f"{_list(tops)} in {tree.root} all contain {', '.join(first[:3])}: are they splits or "
            "classes? Set "
            f"{names.mapped('data.splits', {tops[0].name: 'train', tops[1].name: 'test'})} or "
            f"{names.mapped('data.splits', {tops[0].name: _CLASS})}"
        )


def is_image(path: Path) -> bool:
    """Check if a file's name is that of an image."""
    return path.suffix.lower() in _IMAGES


def _list(folders: Sequence[Path] | Mapping[Path, str]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)
