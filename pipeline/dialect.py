"""Read params.yaml, `dvc exp run -S` and the command line as one dialect: YAML 1.2, as DVC does.

YAML text -> plain values, each checked against the type of its setting. In YAML 1.1, which most
Python programs read, `on` and `no` are true and false, and 010 is 8.
"""

import dataclasses
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from enum import EnumType
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

_PLAIN = (str, bool, int, float, list, Mapping, type(None))


def load(path: Path) -> Any:
    """Read the values of a YAML file.

    Raises:
        InputError: It is not YAML, or not text in UTF-8.
    """
    try:
        return parsed(path.read_text(encoding="utf-8-sig"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be YAML: {' '.join(str(error).split())}") from error


def parsed(text: str) -> Any:
    """Read the values of a YAML document; raises ruamel's YAMLError."""
    return YAML(typ="safe", pure=True).load(text)


@cache
def hints(whole: type, kinds: tuple[tuple[str, ModuleType], ...]) -> Mapping[str, Any]:
    """Map the full name of every setting to its type hint.

    Args:
        whole: The dataclass of the whole config.
        kinds: Section and the package whose modules add settings to it.
    """
    types_of = dict(_hints(whole, ""))
    for name, package in kinds:
        for module in pkgutil.iter_modules(package.__path__):
            kind = importlib.import_module(f"{package.__name__}.{module.name}")
            for full, hint in _hints(kind.Config, name):
                types_of[full] = typing.Union[types_of.get(full, hint), hint]  # noqa: UP007
    return types_of


def _hints(section: type, prefix: str) -> Iterator[tuple[str, Any]]:
    own = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        hint, name = own[field.name], f"{prefix}.{field.name}".removeprefix(".")
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            yield from _hints(hint, name)
        else:
            yield name, hint


def check(values: Any, expected: Mapping[str, Any], prefix: str = "") -> None:
    """Stop at a value that does not have the type of its setting.

    Args:
        values: Nested, as YAML has them.
        expected: The result of `hints`.
        prefix: Full name of the section that the values belong to.

    Raises:
        InputError: The message says which quotes to add to a value that should be text.
    """
    hint = expected.get(prefix)
    if isinstance(values, Mapping) and hint is None:
        for key, value in values.items():
            check(value, expected, f"{prefix}.{key}".removeprefix("."))
    elif hint is not None:
        _check_type(values, hint, prefix)
    elif not isinstance(values, _PLAIN):
        raise InputError(f"{prefix} must not be a {_called(values)}, got {values}: add quotes")


def _check_type(value: Any, hint: Any, name: str) -> None:
    if hint is Any or (isinstance(value, str) and ("${" in value or value == "???")):
        return
    if hint in (list[str], dict[str, str], list[int]) and isinstance(value, (list, Mapping)):
        (inner, *_) = typing.get_args(hint)
        items = [*value, *value.values()] if isinstance(value, Mapping) else value
        if isinstance(value, typing.get_origin(hint)):
            for item in items:
                _check_type(item, inner, name)
            return
    if _fits(value, hint):
        return
    written = yaml_word(value)
    is_scalar = not isinstance(value, (list, Mapping))
    remedy = (
        f', which YAML reads as a {_called(value)}: put it in quotes, such as "{written}"'
        if hint is str and is_scalar
        else ""
    )
    raise InputError(f"{name} must be {_described(hint)}, got {written}{remedy}")


def _fits(value: Any, hint: Any) -> bool:
    """Check a value against a type; numeric text counts as a number, as in OmegaConf."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(hint))
    if hint in (int, float):
        if isinstance(value, str):
            try:
                return hint(value) is not None
            except ValueError:
                return False
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if isinstance(hint, EnumType):  # OmegaConf checks the choices
        return not isinstance(value, (list, Mapping, type(None)))
    return hint is Any or isinstance(value, typing.get_origin(hint) or hint)


def _described(hint: Any) -> str:
    """A type in words, such as `an integer or auto`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        automatic = str in parts and {int, float} & set(parts)
        numbers = [float] if float in parts else [part for part in parts if part is int]
        rest = [part for part in parts if part not in (int, float, str if automatic else None)]
        words = [_described(part) for part in (*numbers, *rest)]
        return " or ".join(dict.fromkeys([*words, "auto"] if automatic else words))
    if isinstance(hint, EnumType):
        return f"one of {', '.join(str(member.value) for member in list[Any](hint))}"
    named = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    named |= {list: "a list", dict: "a mapping", type(None): "null"}
    return named.get(typing.get_origin(hint) or hint, str(hint))


def yaml_word(value: Any) -> str:
    """A value as YAML writes it, in a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value!r}" if isinstance(value, str) else str(value)


def _called(value: Any) -> str:
    names_of = {bool: "boolean", int: "number", float: "number", type(None): "missing value"}
    return names_of.get(type(value), "date")


def as_text(word: str, expected: Mapping[str, Any]) -> str:
    """Check a word of the command line, and quote a value that its setting takes as text.

    So `data.path=My Pics (new), a=b` needs no quotes but the shell's.

    Args:
        word: Such as `section.key=value`.
        expected: The result of `hints`.

    Raises:
        InputError: The value does not have the type of its setting.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    hint = expected.get(name)
    if not equals or hint is None:
        return word
    takes_text = hint in (str, str | None)
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        read = _plain(override.value())
    except HydraException:
        return f"{key}={names.quoted(value)}" if takes_text else word
    if not takes_text:
        if not override.is_sweep_override():
            _check_type(read, hint, name)
        return word
    if isinstance(read, str) or value in ("null", "") or value.startswith(("${", "'", '"')):
        if value == "null":
            _check_type(None, hint, name)
        return word
    return f"{key}={names.quoted(value)}"


def value_of(word: str, expected: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and value of a word of the command line; arguments and errors as for `as_text`."""
    text = as_text(word, expected)
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        raise InputError(f"{word}: {' '.join(str(error).split())}") from error
    return override.get_key_element().lstrip("+~"), _plain(override.value())


def _plain(value: Any) -> Any:
    """Convert Hydra's quoted strings to plain ones."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return getattr(value, "text", value)
