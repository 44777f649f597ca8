"""A folder with one subfolder per class, or with train/, val/ and test/ above them.

folder -> images. Every file that is not hidden is yielded; its content later decides if it is an
image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.intake import layout
from pipeline.intake.sources import Sample, SourceConfig
from pipeline.settings import setting


@dataclass
class Config(SourceConfig):
    """A folder: `path`."""

    kind: str = "folder"
    splits: dict[str, str] = setting(
        {},
        "Use folders as splits, for example {photos_2023: train, photos_2024: test}, or "
        "{val: test} to use val/ as the test split; {train: class} if train/ is a class.",
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images of a folder."""
    yield from layout.walk(Path(config.path), config.splits, config.ignore)
