"""How many rows a request has, before anything is made of them.

body -> a number. A few kilobytes may stand for millions of rows.
"""

import io
import json
from typing import Any

PARQUET = b"application/vnd.apache.parquet"
_BRACKETS_MAX = 3_000_000
"""Lists and objects of a body: as Python's objects they take ten times its size."""
_SMALL = 10_000


class TooMany(ValueError):
    """The request is larger than it may be; the message says how."""


def check(body: bytes, kind: bytes, max_rows: int, max_bytes: int) -> int | None:
    """Count the rows of a request, as far as that is needed.

    Args:
        body: Of the request.
        kind: Its Content-Type.
        max_rows: How many it may have.
        max_bytes: Of the body once it is decompressed.

    Returns:
        How many it has; None if they are few enough, or if it is not of a form that has rows.

    Raises:
        TooMany: There are more, or they take more bytes.
    """
    count = _of_parquet(body, max_rows, max_bytes) if kind == PARQUET else _of_json(body, max_rows)
    if count is not None and count > max_rows:
        raise TooMany(f"a request may have at most {max_rows} rows, got {count}: send fewer")
    return count


def _of_parquet(body: bytes, max_rows: int, max_bytes: int) -> int | None:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(body))
        about = file.metadata
        if about.num_rows <= max_rows:
            groups = (about.row_group(place) for place in range(about.num_row_groups))
            size = sum(group.total_byte_size for group in groups)
            # A value that is repeated is stored once: only its rows tell what they will take.
            rows = file.iter_batches(batch_size=1) if size <= max_bytes else ()
            for row in rows:
                size += row.nbytes
                if size > max_bytes:
                    break
            if size > max_bytes:
                raise TooMany(
                    f"a request may have at most {max_bytes / 1e6:g} MB, this one has more once "
                    "it is decompressed: send fewer rows"
                )
    except (pyarrow.ArrowException, OSError):
        return None
    return int(about.num_rows)


def _of_json(body: bytes, max_rows: int) -> int | None:
    """Rows are told apart by commas: where these are few enough, nothing need be parsed."""
    if body.count(b",") < max_rows and len(body) > _SMALL:
        return None
    if body.count(b"[") + body.count(b"{") > _BRACKETS_MAX:
        raise TooMany("a request may have at most 3 million lists: send images as base64")
    try:
        parsed = json.loads(body)
    except ValueError:
        return None
    return _counted(parsed)


def _counted(parsed: Any) -> int | None:
    """Rows of one of the forms that MLflow reads."""
    if not isinstance(parsed, dict):
        return None
    split = parsed.get("dataframe_split")
    rows = split.get("data") if isinstance(split, dict) else None
    for form in ("dataframe_records", "inputs", "instances"):
        rows = parsed.get(form, rows)
    if isinstance(rows, dict):  # columns
        rows = next(iter(rows.values()), None)
    return len(rows) if isinstance(rows, list) else None
