"""Settings that are `auto`, as a stage derived them: derived.json in its output.

full name of a setting -> value and reason. Knows nothing of how they are derived.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.storage.tables import write_json

_FILE = "derived.json"
Value = int | float | str


@dataclass(frozen=True)
class Derived:
    """What stands in for `auto`, and why."""

    value: Value
    reason: str


def tell(values: dict[str, Derived]) -> None:
    """Print each value with its reason."""
    for name, one in values.items():
        print(f"{name}={one.value}: {one.reason}", flush=True)


def write(folder: Path, values: dict[str, Derived]) -> None:
    """Write what was derived to a stage's output; no file if that is nothing."""
    if values:
        write_json(folder / _FILE, {name: asdict(one) for name, one in values.items()})


def value(folder: Path, name: str, asked: object) -> object:
    """A setting as the stage whose output this is used it.

    Args:
        folder: The stage's output.
        name: Full name of the setting.
        asked: What the config says.
    """
    derived = read(folder).get(name)
    return derived.value if derived else asked


def read(folder: Path) -> dict[str, Derived]:
    """What the stage derived whose output this is."""
    path = folder / _FILE
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: Derived(**one) for name, one in content.items()}
