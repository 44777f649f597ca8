"""The images in the body of a request, read within limits.

body -> values, as for `Service.predict`. A few kilobytes may represent millions of rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

FORMS = (
    "multipart files (-F file=@a.jpg), an image file as the body, or JSON: "
    '{"images": ["<base64 of an image file>"]}'
)
"""Forms of a request to /predict."""
PARQUET = "application/vnd.apache.parquet"
KINDS = ("application/json", "text/csv", PARQUET)
"""Values of Content-Type that MLflow's protocol has here."""
_FORM = 'the form of a request is {"dataframe_records": [{"image": "<base64 of an image file>"}]}'
_COLUMN = "image"
_BRACKETS_MAX = 3_000_000
"""Maximum number of lists and objects in a body: in Python they take ten times its size."""


class BadRequest(ValueError):
    """A request that cannot be read: the message is the reason, `status` the HTTP status."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


async def of_multipart(headers: Headers, body: bytes, max_rows: int) -> list[bytes]:
    """Read the files of a multipart form.

    Raises:
        BadRequest: It is no such form, or has a field that is not a file.
    """

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        # One more than allowed, so that the message is that of other forms.
        form = await MultiPartParser(headers, whole(), max_files=max_rows + 1).parse()
    except (MultiPartException, KeyError) as error:
        raise BadRequest(f"the multipart form cannot be read: {error}") from error
    values = []
    for name, part in form.multi_items():
        if isinstance(part, str):
            raise BadRequest(f"the field {name!r} is text, not a file: send {FORMS}")
        values.append(await part.read())
    await form.close()
    return values


def of_json(body: bytes) -> list[Any]:
    """Read the images of a JSON object: {"images": [...]}, or {"image": ...} for one.

    Raises:
        BadRequest: It has another form.
    """
    match _parsed(body):
        case {"images": list(values)}:
            return values
        case {"image": value}:
            return [value]
    raise BadRequest(f"the request has no image: send {FORMS}")


def of_mlflow(body: bytes, kind: str, max_rows: int, max_bytes: int) -> list[Any]:
    """Read the rows of a request in MLflow's scoring protocol.

    Raises:
        BadRequest: It has another form, or too many or too large rows.
    """
    if kind == PARQUET:
        return list(_of_parquet(body, max_rows, max_bytes))
    if kind == "text/csv":
        return _of_csv(body, max_bytes)
    return _of_records(_parsed(body))


def too_many(count: int, max_rows: int) -> BadRequest:
    """Refuse a request with too many images."""
    return BadRequest(f"a request may have at most {max_rows} images, got {count}: send fewer", 413)


def _parsed(body: bytes) -> Any:
    if body.count(b"[") + body.count(b"{") > _BRACKETS_MAX:
        limit = f"{_BRACKETS_MAX // 1_000_000} million"
        raise BadRequest(
            f"a request may have at most {limit} lists: send images as base64", status=413
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the request is not valid JSON") from error


def _of_records(body: Any) -> list[Any]:
    """Return the values of a form that MLflow reads: of records, a split frame or a tensor."""
    match body:
        case {"dataframe_records": list(rows)}:
            return [_of_record(row) for row in rows]
        case {"dataframe_split": {"columns": list(columns), "data": list(rows)}}:
            if _COLUMN not in columns:
                raise BadRequest(f"the column {_COLUMN!r} is missing: {_FORM}")
            place = columns.index(_COLUMN)
            return [row[place] if _reaches(row, place) else None for row in rows]
        case {"inputs": {"image": list(values)}} | {"instances": {"image": list(values)}}:
            return values
        case {"inputs": list(values)} | {"instances": list(values)}:
            return [_of_record(value) if isinstance(value, dict) else value for value in values]
    raise BadRequest(_FORM)


def _reaches(row: Any, place: int) -> bool:
    return isinstance(row, list) and len(row) > place


def _of_record(row: Any) -> Any:
    if not isinstance(row, dict) or _COLUMN not in row:
        raise BadRequest(f"the column {_COLUMN!r} is missing in a record: {_FORM}")
    return row[_COLUMN]


def _of_csv(body: bytes, max_bytes: int) -> list[str]:
    csv.field_size_limit(max_bytes)
    try:
        rows = csv.DictReader(io.StringIO(body.decode()), strict=True)
        if _COLUMN not in (rows.fieldnames or ()):
            raise BadRequest(f"the column {_COLUMN!r} is missing in the csv: {_FORM}")
        return [row[_COLUMN] for row in rows]
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadRequest(f"the request is not a csv file in UTF-8: {error}") from error


def _of_parquet(body: bytes, max_rows: int, max_bytes: int) -> Iterator[Any]:
    """Yield the values row by row: a repeated value is stored once, so only this shows its size."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(body))
        about = file.metadata
        if about.num_rows > max_rows:
            raise too_many(about.num_rows, max_rows)
        if _COLUMN not in file.schema_arrow.names:
            raise BadRequest(f"the column {_COLUMN!r} is missing in the Parquet file: {_FORM}")
        size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
        # Even the first row could be too large to be read.
        rows = file.iter_batches(batch_size=1, columns=[_COLUMN]) if size <= max_bytes else ()
        for row in rows:
            size += row.nbytes
            if size > max_bytes:
                break
            yield row.column(0)[0].as_py()
        if size > max_bytes:
            limit = f"{max_bytes / 1e6:g} MB"
            raise BadRequest(f"a request may have at most {limit} when decompressed", 413)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadRequest("the request is not a Parquet file") from error


_FILE = {"type": "string", "format": "binary"}
_FILES = {"type": "object", "properties": {"file": {"type": "array", "items": _FILE}}}
_TEXT = {"type": "string", "format": "byte"}
_TEXTS = {"type": "object", "properties": {"images": {"type": "array", "items": _TEXT}}}


def _described(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


IMAGES = _described(
    {
        "multipart/form-data": {"schema": _FILES},
        "image/*": {"schema": _FILE},
        "application/json": {"schema": _TEXTS},
    }
)
"""Request body of /predict in OpenAPI."""
MLFLOW = _described(
    {"application/json": {"example": {"dataframe_records": [{"image": "/9j/4AAQSkZJRg..."}]}}}
)
"""Request body of /invocations in OpenAPI."""
