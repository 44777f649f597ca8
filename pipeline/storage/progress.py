"""Progress bars: shown in a terminal, once something takes a second, and gone at the end."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(rows: Iterable[Any] | None = None, desc: str = "", **options: Any) -> Any:
    """Return a bar with options of tqdm; it is hidden without `desc`."""
    hidden = None if desc else True
    return tqdm(rows, desc, **{"unit": "image", **options}, delay=1, leave=False, disable=hidden)
