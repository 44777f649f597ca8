"""Names of files and classes as text: what is no UTF-8 or no character is written out.

file name or label -> text that tables, pages and terminals can hold.
"""

import json
import os
import re
import shlex
import unicodedata
from collections.abc import Mapping

_PLAIN = re.compile(r"(?!(true|false|null|nan|inf)$)[A-Za-z_][\w-]*", re.ASCII | re.IGNORECASE)


def shown(name: str) -> str:
    r"""A name with `\xNN` for each byte that is no UTF-8 and for each control character.

    Args:
        name: As the file system gives it.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(_visible(character) for character in text)


def label(name: str) -> str:
    """A class name: in one Unicode form, whichever the file system or the editor used.

    Args:
        name: Of a folder, or a csv's.
    """
    return unicodedata.normalize("NFC", shown(name.strip()))


def quoted(text: str) -> str:
    """Text in the quotes of Hydra, where backslashes count before a quote alone."""
    inner = re.sub(r'(\\*)("|$)', lambda one: 2 * one[1] + ("\\" + one[2] if one[2] else ""), text)
    return f'"{inner}"'


def added(setting: str, name: str) -> str:
    """A word for the command line that adds a name to a list, as a shell takes it.

    Args:
        setting: Full name of the list, such as `data.ignore`.
        name: What is added.
    """
    return shlex.quote(f"{setting}=[{name if _PLAIN.fullmatch(name) else quoted(name)}]")


def mapped(setting: str, pairs: Mapping[str, str]) -> str:
    """What makes a mapping: a word for the command line, or else lines of params.yaml.

    Args:
        setting: Full name of the mapping, such as `data.labels`.
        pairs: What it maps to what.
    """
    if all(map(_PLAIN.fullmatch, (*pairs, *pairs.values()))):
        plain = ", ".join(f"{key}: {value}" for key, value in pairs.items())
        return shlex.quote(f"{setting}={{{plain}}}")
    section, _, name = setting.partition(".")
    # Hydra allows no quotes around keys.
    return f"{name}: {json.dumps(pairs, ensure_ascii=False)} in section {section} of params.yaml"


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\u200d":
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character
