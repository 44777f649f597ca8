"""A study's journal: whether every line of it can be read.

Optuna reads it from its first line on, and stops at a damaged one with a trace: a power cut or a
full disk leaves a last line without its end, to which the next one would be glued.
"""

import json
import time
from pathlib import Path

from pipeline.errors import InputError

_BEING_WRITTEN_S = 1.0


def check(path: Path) -> None:
    """Check a journal; one that is absent is fine.

    Raises:
        InputError: A line is damaged; the message says which.
    """
    damaged = _damaged(path)
    if damaged and damaged == _lines(path):  # the last: somebody may be writing it
        time.sleep(_BEING_WRITTEN_S)
        damaged = _damaged(path)
    if damaged:
        raise InputError(
            f"every line of {path} must be a record of Optuna's, line {damaged} is none: a full "
            "disk or a power cut may have damaged it; take that line out (what it records is "
            "tried again), or move the file away to begin anew"
        )


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def _damaged(path: Path) -> int:
    """Number of the first damaged line, from 1; 0 if there is none."""
    if not path.is_file():
        return 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            record = json.loads(line)
        except ValueError:
            return number
        if not line.endswith(b"\n") or not isinstance(record, dict) or "op_code" not in record:
            return number
    return 0
