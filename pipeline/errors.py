"""The one exception that users are meant to read, and how its line stays short."""

from pipeline.redaction import redacted

_MOST = 300


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
