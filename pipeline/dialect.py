"""One YAML dialect for params.yaml, `dvc exp run -S` and the command line: YAML 1.2, as DVC has it.

YAML text -> plain values; values -> the same ones, if those that should be text are text. In
YAML 1.1, which most Python programs read, `on` and `no` are true and false, and 010 is 8.
"""

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.data import names
from pipeline.errors import InputError

_KINDS = (str, bool, int, float, type(None))


def load(path: Path) -> Any:
    """The values of a YAML file.

    Raises:
        InputError: It is not YAML, or not text in UTF-8.
    """
    try:
        return parsed(path.read_text(encoding="utf-8-sig"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be YAML: {' '.join(str(error).split())}") from error


def parsed(text: str) -> Any:
    """The values of a YAML document; raises ruamel's YAMLError."""
    return YAML(typ="safe", pure=True).load(text)


@cache
def texts(whole: type, kinds: tuple[tuple[str, ModuleType], ...]) -> Mapping[str, str]:
    """Full names of the settings that are text: `text`, `text or null`, `list`, `mapping`.

    Args:
        whole: The dataclass of the whole config.
        kinds: Section and the package whose modules add settings to it.
    """
    found = dict(_texts(whole, ""))
    for name, package in kinds:
        for module in pkgutil.iter_modules(package.__path__):
            kind = importlib.import_module(f"{package.__name__}.{module.name}")
            found |= dict(_texts(kind.Config, name))
    return found


def _texts(section: type, prefix: str) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        hint, name = hints[field.name], f"{prefix}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _texts(hint, name)
        elif hint in (str, str | None):
            yield name, "text" if hint is str else "text or null"
        elif hint == list[str]:
            yield name, "list"
        elif hint == dict[str, str]:
            yield name, "mapping"


def check(values: Any, expected: Mapping[str, str], prefix: str = "") -> None:
    """Stop at a value that YAML reads as a number, a truth or a date where text is expected.

    Args:
        values: Nested, as YAML has them.
        expected: What `texts` gives.
        prefix: Name of the section that they are of.

    Raises:
        InputError: The message has the quotes to add.
    """
    if isinstance(values, Mapping) and expected.get(prefix) != "mapping":
        for key, value in values.items():
            check(value, expected, f"{prefix}.{key}".removeprefix("."))
        return
    kind = expected.get(prefix)
    items: list[Any] = []
    if kind == "text" or (kind == "text or null" and values is not None):
        items = [values]
    elif kind == "list" and isinstance(values, list):
        items = values
    elif kind == "mapping" and isinstance(values, Mapping):
        items = [*values, *values.values()]
    for item in items:
        if not isinstance(item, (str, list, Mapping)):
            shown = (
                "null"
                if item is None
                else str(item).lower()
                if item in (True, False)
                else str(item)
            )
            raise InputError(
                f"{prefix} must be text, got {shown}, which YAML reads as a "
                f'{_called(item)}: write it as it is meant, in quotes, such as "{shown}"'
            )
    if not kind and not isinstance(values, (*_KINDS, list)):
        raise InputError(f"{prefix} must not be a {_called(values)}, got {values}: add quotes")


def _called(value: Any) -> str:
    kinds = {bool: "truth value", int: "number", float: "number", type(None): "missing value"}
    return kinds.get(type(value), "date")


def as_text(word: str, expected: Mapping[str, str]) -> str:
    """A word of the command line; what is not the text that its setting takes gets quotes.

    So `data.path=My Pics (new), a=b` needs no quotes but the shell's.

    Args:
        word: Such as `section.key=value`.
        expected: What `texts` gives.

    Raises:
        InputError: An item of a list or mapping is not text.
    """
    key, equals, value = word.partition("=")
    kind = expected.get(key.lstrip("+"))
    if not equals or kind is None:
        return word
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        read = override.value()
    except HydraException:
        read = None if kind.startswith("text") else word
    if not kind.startswith("text"):
        if not isinstance(read, str):
            check(_plain(read), {key.lstrip("+"): kind}, key.lstrip("+"))
        return word
    if isinstance(read, str) or value in ("null", "") or value.startswith(("${", "'", '"')):
        return word
    return f"{key}={names.quoted(value)}"


def value_of(word: str, expected: Mapping[str, str]) -> tuple[str, Any]:
    """Name and value of a word of the command line; arguments and errors as for `as_text`."""
    text = as_text(word, expected)
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        raise InputError(f"{word}: {' '.join(str(error).split())}") from error
    return override.get_key_element().lstrip("+~"), _plain(override.value())


def _plain(value: Any) -> Any:
    """Hydra's quoted texts as texts."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return getattr(value, "text", value)
