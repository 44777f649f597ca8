"""Pictures that somebody has looked at and does not want: listed by path in a csv file.

csv with a column path + rows -> path -> reason.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.manifest import Row
from pipeline.errors import InputError
from pipeline.storage import tables

_COLUMN = "path"


def reasons(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    """Why pictures are left out, by their paths; those that the data do not have are told.

    Args:
        path: Of the csv file.
        rows: All pictures.

    Raises:
        InputError: There is no such file, or it has no column path.
    """
    listed = _listed(path)
    known = {row.path for row in rows}
    missing = [name for name in listed if name not in known]
    if missing:
        print(
            f"{len(missing)} of {len(listed)} paths in {path} name no picture of the data, the "
            f"first is {missing[0]}",
            flush=True,
        )
    return {name: f"excluded by {path}" for name in listed if name in known}


def _listed(path: Path) -> list[str]:
    try:
        header, lines = tables.read_table(path)
    except FileNotFoundError as error:
        raise InputError(
            f"prepare.exclude must name a csv file, got {path}: no such file; conf/exclude.csv "
            "excludes nothing"
        ) from error
    except (ValueError, csv.Error) as error:  # not UTF-8, or without a line
        raise InputError(
            f"prepare.exclude must name a csv file in UTF-8, with a column path, {path} is none"
        ) from error
    if _COLUMN not in header:
        raise InputError(
            f"prepare.exclude needs a csv file with a column path, {path} has "
            f"{', '.join(header) or 'none'}: copy outputs/evaluate/label_errors.csv"
        )
    place = header.index(_COLUMN)
    return [line[place] for line in lines if len(line) > place]
