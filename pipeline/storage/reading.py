"""Files read in parts, with a bar where that takes long."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

_PART = 1 << 22


def parts(path: Path, doing: str) -> Iterator[bytes]:
    """Yield a file's bytes in order, a few MB at a time.

    Args:
        path: Of the file.
        doing: What the bar says is done with it, before its name.
    """
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size,
            desc=f"{doing} {path.name}",
            unit="B",
            unit_scale=True,
            delay=1,
            leave=False,
            disable=None,
        ) as bar,
    ):
        while part := file.read(_PART):
            yield part
            bar.update(len(part))
