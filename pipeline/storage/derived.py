"""Values that stages derive for settings that are `auto`: derived.json in their output.

full name of a setting -> value and reason.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.storage.tables import read_json, write_json

_FILE = "derived.json"
Value = int | float | str


@dataclass(frozen=True)
class Derived:
    """A derived value and the reason for it."""

    value: Value
    reason: str


def report(values: dict[str, Derived]) -> None:
    """Print each value with its reason."""
    for name, derived in values.items():
        print(f"{name}={derived.value}: {derived.reason}", flush=True)


def write(folder: Path, values: dict[str, Derived]) -> None:
    """Write derived values to a stage's output; no file if there are none."""
    if values:
        write_json(folder / _FILE, {name: asdict(derived) for name, derived in values.items()})


def value(folder: Path, name: str, configured: object) -> object:
    """Return a setting's value as the stage with the output `folder` used it."""
    derived = read(folder).get(name)
    return derived.value if derived else configured


def read(folder: Path) -> dict[str, Derived]:
    """Read the values that a stage derived."""
    path = folder / _FILE
    if not path.exists():
        return {}
    content = read_json(path)
    return {name: Derived(**values) for name, values in content.items()}
