"""How version 0.1 spelled params.yaml and the command line -> one line that says what to write."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from pipeline.errors import InputError


def refuse_sections(params: Mapping[Any, Any], groups: Iterable[str]) -> None:
    """Say what to write instead of the sections `use` and `inputs` of version 0.1."""
    old = {name: params.get(name) for name in ("use", "inputs") if name in params}
    if not old:
        return
    use, inputs = (old.get(name) or {} for name in ("use", "inputs"))
    new: dict[str, dict[str, str]] = {}
    for group in groups:
        if group in use:
            new.setdefault(group, {})["use"] = str(use[group])
        if group in inputs:
            new.setdefault(group, {})["path"] = str(inputs[group])
    lines = [
        f"{group}: {{{', '.join(f'{key}: {value}' for key, value in values.items())}}}"
        for group, values in new.items()
    ]
    if use.get("tracking") == "none":
        lines.append("tracking: {enabled: false}")
    raise InputError(
        f"params.yaml has one section a noun, got the sections {' and '.join(old)} of an earlier "
        f"version: remove them and write {'; '.join(lines) or 'data: {use: ..., path: ...}'}"
    )


def refuse_word(word: str, groups: Container[str]) -> None:
    """Say what to write instead of a word such as `use.data=folder`."""
    key, _, value = word.lstrip("+~").partition("=")
    first, _, rest = key.partition(".")
    if first == "use" and rest == "tracking":
        raise InputError(f"use.tracking is now tracking.enabled, true or false, got {word}")
    if first in ("use", "inputs") and rest in groups:
        new = f"{rest}.{'use' if first == 'use' else 'path'}"
        raise InputError(f"{key} is now {new}, got {word}: write {new}={value}")
