"""Declare a setting: its default, its help and its allowed values, in one place.

A section of params.yaml is a dataclass of settings. `--help` prints these declarations, and
`check` compares every value with them before any work begins.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from enum import EnumType
from typing import Any, TypeVar

from pipeline.errors import InputError

T = TypeVar("T")
REQUIRED = "???"
"""Default of a setting that has none: OmegaConf's mark for a missing value."""
AUTO = "auto"
"""Value of a number until the stage that needs it derives it from the data."""

if typing.TYPE_CHECKING:
    AutoInt: typing.TypeAlias = int
    AutoFloat: typing.TypeAlias = float
else:
    # In a config; code that works with the number sees it derived.
    AutoInt = int | str
    AutoFloat = float | int | str


def is_auto(value: object) -> bool:
    """Check if a number is still to be derived."""
    return value == AUTO


@dataclass(frozen=True)
class Range:
    """Range of a numeric setting; None means unbounded."""

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        ends = (
            ("at least", self.least),
            ("above", self.above),
            ("at most", self.most),
            ("below", self.below),
        )
        bounds = [f"{word} {value:g}" for word, value in ends if value is not None]
        return " and ".join(bounds) or "a finite number"


@dataclass(frozen=True)
class About:
    """Declaration of a setting, besides its type and default.

    Attributes:
        text: Help.
        range: Allowed numbers.
        group: Folder of conf/ whose files are the choices; empty for other settings.
        choices: Allowed strings; empty if the type lists them.
        advanced: Listed after the common settings in help.
    """

    text: str
    range: Range
    group: str = ""
    choices: tuple[str, ...] = ()
    advanced: bool = False


def setting(
    default: T,
    text: str,
    *,
    group: str = "",
    choices: Sequence[str] = (),
    advanced: bool = False,
    **range_: float,
) -> T:
    """Declare a setting by default and help; for the others see `About`, for bounds `Range`."""
    about = About(text, Range(**range_), group, tuple(choices), advanced)
    field: Any = dataclasses.field(default_factory=lambda: copy(default), metadata={"about": about})
    return typing.cast(T, field)


def automatic(text: str, **range_: Any) -> Any:
    """Declare a number whose default is `auto`; arguments as for `setting`."""
    return setting(AUTO, text, **range_)


@dataclass(frozen=True)
class Described:
    """A setting with everything that `--help` shows.

    Attributes:
        name: Full name, such as `finetune.epochs`.
        default: Default; `REQUIRED` if there is none.
        choices: Allowed values, if there are only a few.
        about: Declaration.
    """

    name: str
    default: Any
    choices: tuple[str, ...]
    about: About


def described(section: Any, name: str) -> Iterator[Described]:
    """List the settings of a section, including nested sections, in order of declaration.

    Args:
        section: Instance of the section's dataclass; its values are the defaults.
        name: Name of the section; empty for the whole config.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value, full = getattr(section, field.name), f"{name}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(value):
            yield from described(value, full)
        elif "about" in field.metadata:
            about = field.metadata["about"]
            yield Described(full, value, about.choices or _choices(hints[field.name]), about)


def check(section: Any, name: str) -> None:
    """Compare a section's values with their declarations, then run the section's own `check`.

    Raises:
        InputError: A value is out of range, or values contradict each other.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        value, full = getattr(section, field.name), f"{name}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(value):
            check(value, full)
            continue
        if hints[field.name] in (AutoInt, AutoFloat) and isinstance(value, str):
            value = _number(value, full)
            setattr(section, field.name, value)
        about: About | None = field.metadata.get("about")
        if about and about.choices and value not in about.choices:
            choices = ", ".join(about.choices)
            raise InputError(f"{full} must be one of {choices}, got {value!r}")
        for number in value if isinstance(value, list) else [value]:
            is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
            if about and is_number and number not in about.range:
                raise InputError(f"{full} must be {about.range}, got {value}")
    own: Callable[[str], None] | None = getattr(section, "check", None)
    if own is not None:
        own(name)


def _number(text: str, name: str) -> float | int | str:
    """Convert text such as '1e-3' to a number; keep `auto`."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text == AUTO:
        return text
    raise InputError(f"{name} must be a number or {AUTO}, got {text!r}")


def _choices(hint: Any) -> tuple[str, ...]:
    """List the values of an enum or of an optional enum."""
    if isinstance(hint, EnumType):
        return tuple(str(member.value) for member in list[Any](hint))
    if hint in (AutoInt, AutoFloat):
        return ()
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [_choices(part) for part in typing.get_args(hint)]
        choices = next(filter(None, inner), ())
        return (*choices, "null") if choices else ()
    if hint is bool:
        return ("true", "false")
    return ()
