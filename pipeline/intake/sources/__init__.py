"""Where pictures come from: one module a kind.

A kind is a module with a `Config`, a `SourceConfig` whose `kind` is the module's name, and
`pictures(config) -> Iterator[Picture]`. A new kind is one such module and one YAML in
conf/data/; nothing else changes (docs/extending.md).
"""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from pipeline.data.decoding import MOST_MEGAPIXELS, Pages
from pipeline.settings import REQUIRED, AutoInt, automatic, setting


@dataclass
class SourceConfig:
    """Section `data`: what every kind of source is told; each kind adds its own settings."""

    kind: str = "???"
    use: str = setting(REQUIRED, "Where the pictures come from.", group="data")
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
        "Bits of pictures with more than 8: what is white in them. auto goes by the brightest "
        "value of all.",
        least=8,
        most=16,
    )
    pages: Pages = setting(
        Pages.refuse, "Of TIFF files with several: refuse them, or take the first."
    )
    max_megapixels: float = setting(
        100.0,
        "Larger pictures are taken for decompression bombs, JPEGs above 4 times as much.",
        above=0,
        most=MOST_MEGAPIXELS,
    )


@dataclass(frozen=True)
class Picture:
    """One picture as its source names it, not yet read or judged.

    Attributes:
        path: Its name in the manifest: relative to the source, posix, unique.
        label: Class name; empty for a picture that lies in no class folder.
        split: `train`, `val` or `test` where the source gives it.
        file: Where its bytes are, or None when `content` has them.
        content: Its bytes.
        extra: What else the source says of it, by column; the same columns for all.
        group: Pictures of one group, of a patient for example, come into one split; empty for
            a picture that stands for itself.
    """

    path: str
    label: str
    split: str | None = None
    file: Path | None = None
    content: bytes = b""
    extra: dict[str, str] = field(default_factory=dict)
    group: str = ""

    def read(self) -> bytes:
        """The picture's bytes."""
        return self.file.read_bytes() if self.file else self.content


def pictures(config: Any, desc: str = "") -> Iterator[Picture]:
    """The pictures of a source, in an order that depends on the source alone.

    Args:
        config: The `Config` of one of the modules here.
        desc: Name of the progress bar; no bar if empty.

    Raises:
        InputError: The source is missing or not of the form its kind expects.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    found = module.pictures(config)
    hidden = None if desc else True
    for picture in tqdm(found, desc, unit="picture", delay=1, leave=False, disable=hidden):
        names = (picture.path, picture.label, PurePosixPath(picture.path).name)
        if any(
            name == pattern or fnmatch(name, pattern) for name in names for pattern in config.ignore
        ):
            continue
        renamed = config.labels.get(picture.label)
        yield replace(picture, label=renamed) if renamed else picture
