"""Names of files and classes as text: what is no UTF-8 or no character is written out.

file name or label -> text that tables, pages and terminals can hold.
"""

import os
import unicodedata


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


def _visible(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character != "\u200d":
        code = ord(character)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return character
