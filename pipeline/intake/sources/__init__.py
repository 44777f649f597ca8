"""Where images come from: one module a kind.

A kind is a module with a `Config`, a `SourceConfig` whose `kind` is the module's name, and
`images(config) -> Iterator[Sample]`, which yields every file, also those that are left out, with
the reason. A new kind is one such module and one YAML in conf/data/; nothing else changes
(docs/extending.md).
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from pipeline.data.decoding import MOST_MEGAPIXELS, Pages
from pipeline.settings import REQUIRED, AutoInt, automatic, setting

IGNORED = "ignored by data.ignore"


@dataclass
class SourceConfig:
    """Section `data`: what every kind of source is told; each kind adds its own settings."""

    kind: str = "???"
    use: str = setting(REQUIRED, "Where the images come from.", group="data")
    path: str = setting(
        REQUIRED,
        "The folder, csv file or archive, which DVC watches for changes; for sources without "
        "one, their file in conf/data/.",
    )
    labels: dict[str, str] = setting({}, "Renames classes, such as {Cat: cat}.")
    ignore: list[str] = setting(
        [], "Classes, folders and files that are left out: names, or patterns such as '*_mask.png'."
    )
    depth: AutoInt = automatic(
        "Bits of images with more than 8: what is white in them. auto goes by the brightest "
        "value of all.",
        least=8,
        most=16,
    )
    pages: Pages = setting(
        Pages.refuse, "Of TIFF files with several: refuse them, or take the first."
    )
    max_megapixels: float = setting(
        100.0,
        "Larger images are taken for decompression bombs, JPEGs above 4 times as much.",
        above=0,
        most=MOST_MEGAPIXELS,
    )


@dataclass(frozen=True)
class Sample:
    """One image as its source names it, not yet read or judged.

    Attributes:
        path: Its name in the manifest: relative to the source, posix, unique.
        label: Class name; empty for an image that lies in no class folder.
        split: `train`, `val` or `test` where the source gives it.
        file: Where its bytes are, or None when `content` has them.
        content: Its bytes.
        extra: What else the source says of it, by column; the same columns for all.
        group: Images of one group, of a patient for example, come into one split; empty for
            an image that stands for itself.
        left_out: Why it is not used; empty for one that is to be read. A folder that is named
            for its own sake, such as an empty one, has a path that ends with a slash.
    """

    path: str
    label: str
    split: str | None = None
    file: Path | None = None
    content: bytes = b""
    extra: dict[str, str] = field(default_factory=dict)
    group: str = ""
    left_out: str = ""

    def read(self) -> bytes:
        """The image's bytes."""
        return self.file.read_bytes() if self.file else self.content


def images(config: Any, desc: str = "", left_out: list[Sample] | None = None) -> Iterator[Sample]:
    """The images of a source, in an order that depends on the source alone.

    Args:
        config: The `Config` of one of the modules here.
        desc: Name of the progress bar; no bar if empty.
        left_out: Takes the files that are not used, each with its reason.

    Raises:
        InputError: The source is missing or not of the form its kind expects.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    found = module.images(config)
    hidden = None if desc else True
    for image in tqdm(found, desc, unit="image", delay=1, leave=False, disable=hidden):
        names = (image.path, image.label, PurePosixPath(image.path).name)
        if not image.left_out and any(matches(p, *names) for p in config.ignore):
            image = replace(image, left_out=IGNORED)
        if image.left_out:
            if left_out is not None:
                left_out.append(image)
            continue
        renamed = config.labels.get(image.label)
        yield replace(image, label=renamed) if renamed else image


def matches(pattern: str, *names: str) -> bool:
    """Whether a pattern of `data.ignore` is one of these names, or fits it."""
    return any(name == pattern or fnmatch(name, pattern) for name in names)


def unmatched(ignore: Sequence[str], left_out: Sequence[Sample]) -> list[str]:
    """The patterns of `data.ignore` that leave nothing out.

    Args:
        ignore: The patterns.
        left_out: All that is left out.
    """
    names: set[str] = set()
    for image in left_out:
        if image.left_out == IGNORED:
            path = PurePosixPath(image.path)
            names |= {image.label, *path.parts, *map(str, (path, *path.parents))}
    return [pattern for pattern in ignore if not any(matches(pattern, name) for name in names)]
