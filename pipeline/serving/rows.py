"""Count the rows of a request before parsing it.

body -> a number. A few kilobytes may represent millions of rows.
"""

import io
import json
from typing import Any

PARQUET = b"application/vnd.apache.parquet"
_BRACKETS_MAX = 3_000_000
"""Maximum number of lists and objects in a body: in Python they take ten times its size."""
_SMALL = 10_000


class TooMany(ValueError):
    """The request is too large; the message says how."""


def check(body: bytes, kind: bytes, max_rows: int, max_bytes: int) -> int | None:
    """Count the rows of a request, as far as needed.

    Args:
        body: Body of the request.
        kind: Its Content-Type.
        max_rows: Maximum number of rows.
        max_bytes: Maximum size of the decompressed body.

    Returns:
        The number of rows; None if there are few enough, or if it has no rows.

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
            # A repeated value is stored once: only reading the rows shows their real size.
            rows = file.iter_batches(batch_size=1) if size <= max_bytes else ()
            for row in rows:
                size += row.nbytes
                if size > max_bytes:
                    break
            if size > max_bytes:
                raise TooMany(
                    f"a request may have at most {max_bytes / 1e6:g} MB when decompressed: send "
                    "fewer rows"
                )
    except (pyarrow.ArrowException, OSError):
        return None
    return int(about.num_rows)


def _of_json(body: bytes, max_rows: int) -> int | None:
    """Count rows only if there are enough commas to separate too many."""
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
    """Count the rows of a form that MLflow reads."""
    if not isinstance(parsed, dict):
        return None
    split = parsed.get("dataframe_split")
    rows = split.get("data") if isinstance(split, dict) else None
    for form in ("dataframe_records", "inputs", "instances"):
        rows = parsed.get(form, rows)
    if isinstance(rows, dict):  # columns
        rows = next(iter(rows.values()), None)
    return len(rows) if isinstance(rows, list) else None
