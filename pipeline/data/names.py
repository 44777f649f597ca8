"""File and class names as text: bytes that are not UTF-8 and control characters are escaped.

file name or label -> text for tables, pages and terminals.
"""

import json
import os
import re
import shlex
import unicodedata
from collections.abc import Mapping

_PLAIN = re.compile(r"(?!(true|false|null|nan|inf)$)[A-Za-z_][\w-]*", re.ASCII | re.IGNORECASE)


def display(name: str) -> str:
    r"""Write `\xNN` for each byte that is not UTF-8 and for each control character."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(_visible(character) for character in text)


def label(name: str) -> str:
    """Normalize a class name, so that all file systems and editors give the same one."""
    return unicodedata.normalize("NFC", display(name.strip()))


def quoted(text: str) -> str:
    """Quote text for Hydra, which treats backslashes as special only before a quote."""
    inner = re.sub(r'(\\*)("|$)', lambda m: 2 * m[1] + ("\\" + m[2] if m[2] else ""), text)
    return f'"{inner}"'


def added(setting: str, name: str) -> str:
    """Return a command-line word that adds a name to a list such as `data.ignore`, quoted."""
    return shlex.quote(f"{setting}=[{name if _PLAIN.fullmatch(name) else quoted(name)}]")


def mapped(setting: str, pairs: Mapping[str, str]) -> str:
    """Return how to set a mapping: a command-line word, or else lines of params.yaml."""
    if all(map(_PLAIN.fullmatch, (*pairs, *pairs.values()))):
        plain = ", ".join(f"{key}: {value}" for key, value in pairs.items())
        return shlex.quote(f"{setting}={{{plain}}}")
    section, _, name = setting.partition(".")
    # Hydra does not allow quotes around keys.
    return f"{name}: {json.dumps(pairs, ensure_ascii=False)} in section {section} of params.yaml"


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\u200d":
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character
