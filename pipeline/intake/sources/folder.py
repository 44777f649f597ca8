"""A folder with one sub-folder a class, or with train/, val/ and test/ above these.

folder -> images. Everything that is not hidden is yielded; whether a file is a
image is judged by its content, later.
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
        "Split that each folder is used as, such as {photos_2023: train, photos_2024: test}, or "
        "{val: test} to use a given val/ as the test split; {train: class} if train/ is a class.",
    )


def images(config: Config) -> Iterator[Sample]:
    """Yield the images of a folder."""
    yield from layout.walk(Path(config.path), config.splits, config.ignore)
