"""The one exception that users are meant to read, and text without secrets.

Passwords and tokens in addresses become `***` in every stream, error, run and report.
"""

import re
from typing import Any

_MOST = 300
HIDDEN = "***"
_USER = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:]*)(?P<rest>[^\s/]*)@")
_CREDENTIAL = (
    r"[\w.-]*(?:signature|credential|token|secret|passw|pwd|api[-_]?key|access[-_]?key|auth)[\w.-]*"
)
_QUERY = re.compile(rf"(?P<name>[?&;](?:{_CREDENTIAL}|sig|key|code)=)[^&\s<>\"']+", re.IGNORECASE)


def redacted(text: str) -> str:
    """A text with `***` for every password and token in an address.

    In http(s) addresses, a name without a password is a token, too. Parameters are recognised by
    their names, such as `X-Amz-Signature`.
    """
    if "://" in text:
        text = _USER.sub(_hide, text)
    return _QUERY.sub(rf"\g<name>{HIDDEN}", text) if "=" in text else text


def _hide(match: re.Match[str]) -> str:
    scheme, user, rest = match["scheme"], match["user"], match["rest"]
    if rest:
        return f"{scheme}{user}:{HIDDEN}@"
    return f"{scheme}{HIDDEN}@" if scheme.lower().startswith("http") else match[0]


class InputError(ValueError):
    """Bad input or configuration.

    The message is one line: the rule, the value received, the remedy. The
    runner prints it without a traceback and exits with 1. Secrets in it are hidden.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


def shortened(text: str) -> str:
    """A foreign message in one line of whole words, which may end in dots."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST else f"{line[:_MOST].rpartition(' ')[0] or line[:_MOST]} ..."


class Stopped(Exception):
    """A training that was ended for good while it ran, such as a pruned trial's."""


class Redacted:
    """A text stream through which no secret is written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
