"""Requests of every size and form: answers, limits, messages."""

import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from PIL import Image
from served import CONTENT, ask, encoded, insist_on_a_line

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]


FORM = "the form of a request is"
KINDS = "Content-Type must be application/json, text/csv, application/vnd.apache.parquet, got "


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "application/json", 400, "valid JSON"),
        (b"{", "application/json", 400, "valid JSON"),
        (b"null", "application/json", 400, FORM),
        (b"[1]", "application/json", 400, FORM),
        (b"\xff\xfe", "application/json", 400, "valid JSON"),
        (b"[" * 100_000, "application/json", 400, "valid JSON"),
        (b'{"dataframe_records": 5}', "application/json", 400, FORM),
        (b'{"dataframe_records": [{"x": 1}]}', "application/json", 400, "'image' is missing"),
        (
            b'{"dataframe_split": {"columns": ["x"], "data": []}}',
            "application/json",
            400,
            "'image'",
        ),
        (b'{"instances": 5}', "application/json", 400, FORM),
        (b"x\ny\n", "text/csv", 400, "'image' is missing in the csv"),
        (b"\xff", "text/csv", 400, "not a csv file in UTF-8"),
        (b'image\n"x', "text/csv", 400, "not a csv file"),
        (b"x", "text/plain", 415, KINDS + "text/plain"),
        (b"x", None, 415, KINDS + "none"),
        (b"x", "application/vnd.apache.parquet", 400, "Parquet"),
        (bytes(40_000_001), "application/json", 413, "at most 40 MB"),
    ],
)
def test_a_request_that_cannot_be_read_gets_one_line(
    url: str, body: bytes, kind: str | None, status: int, message: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    insist_on_a_line(requests.post(url, data=body, headers=headers, timeout=60), status, message)


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "", 400, "the request has no image: send multipart files (-F file=@a.jpg)"),
        (b"{", "application/json", 400, "valid JSON"),
        (b"{}", "application/json", 400, "the request has no image"),
        (b'{"images": []}', "application/json", 400, "the request has no image"),
        (b'{"images": 3}', "application/json", 400, "the request has no image"),
        (b"x", "multipart/form-data", 400, "the multipart form cannot be read"),
        (b"x", "multipart/form-data; boundary=b", 400, "the multipart form cannot be read"),
        (b"--b--", "multipart/form-data; boundary=b", 400, "the request has no image"),
        (
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--',
            *("multipart/form-data; boundary=b", 400, "the field 'a' is text, not a file"),
        ),
        (bytes(40_000_001), "image/png", 413, "at most 40 MB"),
    ],
)
def test_a_request_without_an_image_gets_one_line(
    url: str, body: bytes, kind: str, status: int, message: str
) -> None:
    for path in ("/predict", "/explain"):
        address = url.replace("/invocations", path)
        done = requests.post(address, data=body, headers={"Content-Type": kind}, timeout=60)
        insist_on_a_line(done, status, message)


def test_every_form_of_a_request_gets_the_same_answers(
    url: str, expected: dict[str, dict[str, float]]
) -> None:
    address = url.replace("/invocations", "/predict")
    names = list(expected)[:5]
    contents = [CONTENT[name] for name in names]
    texts = [encoded(content) for content in contents]
    forms: list[dict[str, Any]] = [
        {"files": [("file", (f"{place}.png", item)) for place, item in enumerate(contents)]},
        {"files": {str(place): item for place, item in enumerate(contents)}},
        {"json": {"images": texts}},
        {"json": {"images": [f"data:image/png;base64,{text}" for text in texts]}},
    ]
    for form in forms:
        done = requests.post(address, timeout=60, **form)
        assert done.status_code == 200, done.text
        rows = done.json()["predictions"]
        assert [row["probabilities"] for row in rows] == [expected[name] for name in names]
    kinds: list[dict[str, Any]] = [
        {"data": contents[0], "headers": {"Content-Type": kind}}
        for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded")
    ]
    for form in [*kinds, {"data": contents[0]}, {"json": {"image": texts[0]}}]:
        (row,) = requests.post(address, timeout=60, **form).json()["predictions"]
        assert row["probabilities"] == expected[names[0]]
    csv = "image\n" + "\n".join(texts)
    done = requests.post(url, data=csv, headers={"Content-Type": "text/csv"}, timeout=60)
    rows = done.json()["predictions"]
    assert [row["probabilities"] for row in rows] == [expected[name] for name in names]


def test_a_heat_map_has_the_size_of_the_network_s_image(url: str) -> None:
    address = url.replace("/invocations", "/explain")
    content = next(iter(CONTENT.values()))
    done = requests.post(address, data=content, timeout=60)
    image = Image.open(io.BytesIO(done.content))
    assert (done.headers["content-type"], image.size) == ("image/png", (8, 8))
    insist_on_a_line(requests.post(address, data=b"x", timeout=60), 422, "not an image")


def parquet(count: int, value: object) -> bytes:
    file = io.BytesIO()
    pd.DataFrame({"image": [value] * count}).to_parquet(file)
    return file.getvalue()


SMALL_PARQUET = parquet(2_000_000, "x")
LARGE_PARQUET = parquet(600, "x" * 100_000)
RECORDS = json.dumps({"dataframe_records": [{"image": "x"}] * 500_000}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (SMALL_PARQUET, "application/vnd.apache.parquet", "at most 10000 images, got 2000000"),
        (LARGE_PARQUET, "application/vnd.apache.parquet", "at most 40 MB when decompressed"),
        (RECORDS, "application/json", "at most 10000 images, got 500000"),
        (b'{"inputs": [' + b"1," * 11_000 + b"1]}", "application/json", "got 11001"),
        (b'{"instances": [' + b"[]," * 11_000 + b"1]}", "application/json", "got 11001"),
        (b'{"inputs": {"image": [' + b"1," * 11_000 + b"1]}}", "application/json", "got 11001"),
        (
            b'{"dataframe_split": {"columns": ["image"], "data": [' + b"[1]," * 11_000 + b"[1]]}}",
            *("application/json", "got 11001"),
        ),
        (b'{"inputs": [' + b"[]," * 3_100_000, "application/json", "send images as base64"),
    ],
)
def test_more_rows_than_may_be_are_refused_before_they_are_made(
    url: str, body: bytes, kind: str, message: str
) -> None:
    started = time.monotonic()
    done = requests.post(url, data=body, headers={"Content-Type": kind}, timeout=60)
    assert done.status_code == 413, done.text
    assert message in done.json()["error"]
    assert time.monotonic() - started < 10


def test_an_image_as_an_array_is_one_row_however_many_numbers(url: str) -> None:
    pixels = np.zeros((60, 60, 3), int).tolist()
    done = requests.post(url, json={"instances": [{"image": pixels}] * 2}, timeout=60)
    assert done.status_code == 200, done.text
    assert [row["error"] for row in done.json()["predictions"]] == [None, None]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_records": []},
        {"dataframe_split": {"columns": ["image"], "data": []}},
        {"inputs": []},
        {"instances": []},
        {"inputs": {"image": []}},
    ],
)
def test_no_rows_get_no_answers(url: str, body: dict[str, object]) -> None:
    done = requests.post(url, json=body, timeout=60)
    assert (done.status_code, done.json()) == (200, {"predictions": []})


def test_what_a_client_is_told_names_nothing_of_python(url: str) -> None:
    values = [None, 3, 1.5, True, {}, "", "x", [], {"a": [1]}]
    rows = ask(url, values)
    for value, row in zip(values, rows, strict=True):
        assert row["error"], value
        assert not re.search(
            r"NoneType|\b(int|float|bool|dict|list|str|ndarray)\b|Error|<", row["error"]
        ), row
    assert "got null" in rows[0]["error"]
    for body in (b"{", b'"x"', b"[1]", b'{"dataframe_records": 5}', b'{"dataframe_records": [5]}'):
        done = requests.post(
            url, data=body, headers={"Content-Type": "application/json"}, timeout=60
        )
        assert done.status_code == 400, done.text
        message = done.json()["error"]
        assert not re.search(
            r"NoneType|JSONDecodeError|TypeError|\w+Error\b|DataFrame\b", message
        ), message


def test_a_body_of_unknown_length_is_cut_off(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(1_000_000)

    done = requests.post(
        url, data=endless(), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert done.status_code == 413
