"""Write params.yaml, with a reason beside each derived value.

sections -> text -> params.yaml, which is composed as a check before it replaces another.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ruamel.yaml.error import YAMLError

from pipeline import dialect
from pipeline.errors import InputError
from pipeline.networks import backbones
from pipeline.setup.planning import Section
from pipeline.storage.outputs import PARAMS, replacing_file

T = TypeVar("T")

DEFAULT = "mobilenet_v2"
"""Backbone of a new params.yaml."""
_COLUMN = 27
_DEFAULT_DATA = "digits"
"""`data.use` of the params.yaml that comes with the project."""


def text(sections: Mapping[str, Section], command: str) -> str:
    """Format the file.

    Args:
        sections: Name -> section; "" holds the settings outside sections.
        command: Command that created the file.
    """
    lines = [
        f"# Written by `{command}`.",
        "# Edit it and run `dvc repro`; or `dvc exp run -S finetune.learning_rate=1e-4`.",
        "# `python -m pipeline finetune --help` lists the settings of a stage.",
    ]
    for name, section in sections.items():
        lines.append("" if not name else f"\n{name}:")
        indent = "  " if name else ""
        for setting, (value, reason) in section.items():
            line = f"{indent}{setting}: {written(value)}"
            # At least one space: without it, YAML would include the reason in the value.
            lines.append(f"{line:{_COLUMN - 1}} # {reason}" if reason else line)
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def refuse_to_lose(force: bool) -> None:
    """Stop if a user's params.yaml would be replaced without --force."""
    if PARAMS.exists() and not force and not is_default():
        raise InputError(
            f"{PARAMS} exists: pass --force to replace it (the old file is kept as {_backup()}); "
            "with make, FORCE=1"
        )


def composed(data: dict[str, Any], backbone: str, compose: Callable[..., T]) -> T:
    """Compose a config from section `data` and a network's name, without params.yaml."""
    few = {"data": data, "backbone": backbones.section(backbone), "head": {"use": "logistic"}}
    plain = {name: {n: (value, "") for n, value in own.items()} for name, own in few.items()}
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / PARAMS
        path.write_text(text(plain, "init"), encoding="utf-8")
        return compose([], path)


def write(content: str, compose: Callable[..., Any]) -> Path | None:
    """Write the file; returns the copy of the old one, if there was one.

    Args:
        content: Its text.
        compose: Words of the command line, file -> config; raises if it is invalid.
    """
    with replacing_file(PARAMS) as aside:
        aside.write_text(content, encoding="utf-8")
        compose([], aside)
        copy = _backup() if PARAMS.exists() else None
        if copy:
            copy.write_bytes(PARAMS.read_bytes())
    return copy


def is_default() -> bool:
    """Check if params.yaml is the one that comes with the project."""
    try:
        present = dialect.load(PARAMS)
    except InputError:
        return False
    data = present.get("data") if isinstance(present, dict) else None
    return isinstance(data, dict) and data.get("use") == _DEFAULT_DATA


def _backup() -> Path:
    """Return an unused name: params.before.yaml, params.before2.yaml ..."""
    number, path = 1, PARAMS.with_name("params.before.yaml")
    while path.exists():
        number += 1
        path = PARAMS.with_name(f"params.before{number}.yaml")
    return path


def written(value: Any) -> str:
    """Format a value as YAML on one line."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{written(key)}: {written(inner)}" for key, inner in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list):
        return "[" + ", ".join(written(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return json.dumps(value, ensure_ascii=False) if _needs_quotes(value) else str(value)


def _needs_quotes(value: Any) -> bool:
    """Check if text would mean something else in YAML, or to OmegaConf."""
    if not isinstance(value, str):
        return False
    try:
        return "${" in value or dialect.parsed(f"[{value}, {value}: 0]") != [value, {value: 0}]
    except YAMLError:
        return True
