"""Write params.yaml, a reason beside each value that was derived.

sections -> text -> params.yaml, which is composed before it takes the place of another.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from pipeline import dialect
from pipeline.errors import InputError
from pipeline.setup.planning import Section
from pipeline.storage.outputs import PARAMS, replacing_file

_COLUMN = 27
_SHIPPED = "digits"
"""`data.use` of the file that comes with the project: it describes nobody's images."""


def text(sections: Mapping[str, Section], command: str) -> str:
    """The file's text.

    Args:
        sections: Name -> section; "" has the settings that belong to none.
        command: That the file was made with.
    """
    lines = [
        f"# Written by `{command}`.",
        "# Edit it and run `dvc repro`; or `dvc exp run -S finetune.learning_rate=1e-4`.",
        "# `python -m pipeline finetune --help` lists the settings of a stage.",
    ]
    for name, section in sections.items():
        lines.append("" if not name else f"\n{name}:")
        indent = "  " if name else ""
        for setting, value in section.values.items():
            line = f"{indent}{setting}: {written(value)}"
            reason = section.reasons.get(setting)
            # A blank at least: without it, YAML takes the reason for a part of the value.
            lines.append(f"{line:{_COLUMN - 1}} # {reason}" if reason else line)
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def refuse_to_lose(force: bool) -> None:
    """Stop if a params.yaml of somebody's own would be replaced unasked.

    Args:
        force: Whether it was asked for.
    """
    if PARAMS.exists() and not force and not _is_the_shipped_one():
        raise InputError(
            f"{PARAMS} is not overwritten unasked, and there is one: --force keeps it aside and "
            "writes another"
        )


def write(content: str, compose: Callable[..., Any]) -> Path | None:
    """Put the file in place; returns where the old one is kept, if there was one.

    Args:
        content: Its text.
        compose: Words of the command line, file -> config; raises what is wrong with it.
    """
    with replacing_file(PARAMS) as aside:
        aside.write_text(content, encoding="utf-8")
        compose([], aside)
        kept = _aside() if PARAMS.exists() else None
        if kept:
            kept.write_bytes(PARAMS.read_bytes())
    return kept


def _is_the_shipped_one() -> bool:
    try:
        present = dialect.load(PARAMS)
    except InputError:
        return False
    data = present.get("data") if isinstance(present, dict) else None
    return isinstance(data, dict) and data.get("use") == _SHIPPED


def _aside() -> Path:
    """A name that is free: params.before.yaml, params.before2.yaml ..."""
    number, path = 1, PARAMS.with_name("params.before.yaml")
    while path.exists():
        number += 1
        path = PARAMS.with_name(f"params.before{number}.yaml")
    return path


def written(value: Any) -> str:
    """As YAML on one line."""
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{written(key)}: {written(inner)}" for key, inner in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(written(inner) for inner in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-")
    return json.dumps(value, ensure_ascii=False) if _needs_quotes(value) else str(value)


def _needs_quotes(value: Any) -> bool:
    """Whether text would mean something else in YAML, or to OmegaConf."""
    if not isinstance(value, str):
        return False
    try:
        return "${" in value or dialect.parsed(f"[{value}, {value}: 0]") != [value, {value: 0}]
    except YAMLError:
        return True
