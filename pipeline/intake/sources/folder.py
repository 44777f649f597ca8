"""A folder with one sub-folder a class, or with train/, val/ and test/ above these.

folder -> pictures. Everything that is not hidden is yielded; whether a file is a
picture is judged by its content, later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.intake.sources import Picture, SourceConfig
from pipeline.settings import setting

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass
class Config(SourceConfig):
    """A folder: `path`."""

    kind: str = "folder"
    splits: dict[str, str] = setting(
        {},
        "Renames given splits, such as {val: test} for data that brings a labelled val/ only, "
        "which is then the test split.",
    )


def pictures(config: Config) -> Iterator[Picture]:
    """Yield the pictures of a folder."""
    yield from walk(Path(config.path), config.splits)


def walk(root: Path, renames: dict[str, str]) -> Iterator[Picture]:
    """Yield the pictures below `root`, sorted by path.

    Args:
        root: Folder of classes, or of splits of classes.
        renames: Given split -> the split it is used as.

    Raises:
        InputError: `root` is missing, or holds no class folder.
    """
    if not root.is_dir():
        raise InputError(
            f"data path must be a folder of class folders, got {root}, which "
            f"{'is a file' if root.exists() else 'does not exist'}: set data.path to the folder"
        )
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders(root)}
    if splits and all(splits.values()):
        for folder, split in splits.items():
            used_as = _renamed(str(split), renames)
            for label in folders(folder):
                yield from _class(root, label, used_as)
    else:
        for label in folders(root):
            yield from _class(root, label, None)


def _renamed(split: str, renames: dict[str, str]) -> str:
    used_as = renames.get(split, split)
    if used_as not in ("train", "val", "test"):
        raise InputError(f"data.splits maps to train, val or test, got {split}: {used_as}")
    return used_as


def _class(root: Path, folder: Path, split: str | None) -> Iterator[Picture]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(root)
        if file.is_file() and not any(_hidden(part) for part in (inside, *inside.parents)):
            yield Picture(inside.as_posix(), folder.name, split, file)


def folders(folder: Path) -> list[Path]:
    """The folders in a folder that are not hidden, sorted."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p))


def _hidden(path: Path) -> bool:
    return path.name.startswith((".", "__MACOSX"))
