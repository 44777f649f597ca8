"""A folder with one sub-folder a class, or with train/, val/ and test/ above these.

folder -> pictures. Everything that is not hidden is yielded; whether a file is a
picture is judged by its content, later.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.intake import layout
from pipeline.intake.sources import Picture, SourceConfig
from pipeline.settings import setting


@dataclass
class Config(SourceConfig):
    """A folder: `path`."""

    kind: str = "folder"
    splits: dict[str, str] = setting(
        {},
        "What folders are used as: {fotos_2023: train, fotos_2024: test}; or renames given splits, "
        "such as {val: test} for data that brings a labelled val/ only, which is then the test "
        "split.",
    )


def pictures(config: Config) -> Iterator[Picture]:
    """Yield the pictures of a folder."""
    folder = layout.unwrapped(Path(config.path), config.ignore)
    yield from layout.walk(folder, config.splits, config.ignore)
