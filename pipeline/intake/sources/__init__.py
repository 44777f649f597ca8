"""Sources of images, one module per kind.

A kind is a module with a `Config`, a `SourceConfig` whose `kind` is the module's name, and
`images(config) -> Iterator[Sample]`, which yields every file, including those left out, with the
reason. To add a kind, add such a module and a YAML file in conf/data/ (docs/extending.md).
"""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data import names, tasks
from pipeline.data.decoding import MOST_MEGAPIXELS, Pages
from pipeline.errors import InputError
from pipeline.settings import REQUIRED, AutoInt, automatic, setting
from pipeline.storage import progress
from pipeline.storage.derived import Derived

IGNORED = "ignored by data.ignore"


@dataclass
class SourceConfig:
    """Section `data`: settings of every kind of source; each kind adds its own."""

    kind: str = "???"
    use: str = setting(REQUIRED, "Source of the images.", group="data")
    path: str = setting(
        REQUIRED,
        "Folder, csv file or archive, watched by DVC for changes; other sources name their file in "
        "conf/data/.",
    )
    labels: dict[str, str] = setting({}, "Rename classes, for example {Cat: cat}.")
    ignore: list[str] = setting(
        [], "Classes, folders and files to leave out: names, or patterns such as '*_mask.png'."
    )
    depth: AutoInt = automatic(
        "Bit depth that counts as white in images with more than 8 bits per channel. `auto` uses "
        "the brightest value of all images.",
        least=8,
        most=16,
        advanced=True,
    )
    pages: Pages = setting(
        Pages.refuse, "Treatment of multi-page TIFF files: refuse them, or use the first page."
    )
    max_megapixels: float = setting(
        100.0,
        "Larger images are rejected as decompression bombs, JPEGs above 4 times as many.",
        above=0,
        most=MOST_MEGAPIXELS,
        advanced=True,
    )

    def check(self, section: str) -> None:
        """Stop at a class that is renamed to nothing."""
        for old, new in self.labels.items():
            if not new or new != names.display(new).strip():
                raise InputError(
                    f"{section}.labels must rename {old!r} to a class name, got {new!r}: leave "
                    f"the class out with {names.added(f'{section}.ignore', old)}"
                )

    @property
    def title(self) -> str:
        """Name of the data for people: that of the folder or file, or `use`."""
        path = Path(self.path)
        return self.use if path.parts[:1] == ("conf",) else path.name.partition(".")[0]


@dataclass(frozen=True)
class Sample:
    """One image as its source names it, not yet read or checked.

    Attributes:
        path: Name in the manifest: relative to the source, POSIX, unique.
        label: Class name, or what the task makes of labels and numbers; empty for an image that is
            in no class folder.
        split: `train`, `val` or `test`, if the source assigns it.
        file: File with its bytes, or None if `content` has them.
        content: Its bytes.
        extra: Further columns of the source; the same columns for all images.
        group: Images of one group, for example of one patient, get the same split; empty for an
            image on its own.
        left_out: Why it is not used; empty for an image to be read. A folder or label that is
            named itself, such as an empty folder, has a path that ends with a slash.
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
        """Read the image's bytes."""
        return self.file.read_bytes() if self.file else self.content


def images(config: Any, desc: str = "", left_out: list[Sample] | None = None) -> Iterator[Sample]:
    """Yield the images of a source, in an order that depends only on the source.

    Args:
        config: The `Config` of one of the modules here.
        desc: Name of the progress bar; no bar if empty.
        left_out: Receives the files that are not used, each with its reason.

    Raises:
        InputError: The source is missing or not in the form that its kind expects.
    """
    module = importlib.import_module(f"{__name__}.{config.kind}")
    samples = progress.bar(module.images(config), desc)
    # A csv file renames and ignores each of several labels itself.
    for image in chosen(samples, config, by_label=config.kind != "csv"):
        if not image.left_out:
            yield image
        elif left_out is not None:
            left_out.append(image)


def chosen(samples: Iterable[Sample], config: SourceConfig, by_label: bool) -> Iterator[Sample]:
    """Leave out what `data.ignore` names, by path or label, and rename labels."""
    for image in samples:
        own = [image.path, PurePosixPath(image.path).name, *([image.label] if by_label else [])]
        if not image.left_out and any(matches(p, *own) for p in config.ignore):
            image = replace(image, left_out=IGNORED)
        if by_label and image.label in config.labels and not image.left_out:
            image = replace(image, label=config.labels[image.label])
        yield image


def task(config: Any) -> Derived:
    """Return the name of the task that a source is for, with the reason."""
    module = importlib.import_module(f"{__name__}.{config.kind}")
    if hasattr(module, "task"):
        decided: Derived = module.task(config)
        return decided
    return Derived(tasks.DEFAULT, "each image is in one class folder")


def count(config: Any, desc: str = "") -> int | None:
    """Count the images to be read; None if listing them would read them."""
    listed = config.kind in ("folder", "csv", "archive")
    return sum(1 for _ in images(config, desc)) if listed else None


def matches(pattern: str, *names: str) -> bool:
    """Check if a pattern of `data.ignore` equals or matches one of these names."""
    return any(name == pattern or fnmatch(name, pattern) for name in names)


def unmatched(ignore: Sequence[str], left_out: Sequence[Sample]) -> list[str]:
    """List the patterns of `data.ignore` that leave nothing out."""
    every: set[str] = set()
    for image in left_out:
        if image.left_out == IGNORED:
            path = PurePosixPath(image.path)
            every |= {image.label, *path.parts, *map(str, (path, *path.parents))}
    return [pattern for pattern in ignore if not any(matches(pattern, name) for name in every)]
