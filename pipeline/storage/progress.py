"""Progress bars that appear in a terminal after a second and disappear at the end."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(rows: Iterable[Any] | None = None, desc: str = "", **options: Any) -> Any:
    """Return a progress bar, with options of tqdm; it is hidden without `desc`."""
    hidden = None if desc else True
    return tqdm(rows, desc, **{"unit": "image", **options}, delay=1, leave=False, disable=hidden)
