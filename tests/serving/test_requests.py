"""Requests of every size and form: limits, messages, cancelled work."""

import io
import json
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import requests
from conftest import listening
from PIL import Image
from served import CONTENT, ask, encoded

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "application/json", 400, "valid JSON"),
        (b"{", "application/json", 400, "valid JSON"),
        (b"null", "application/json", 400, "JSON dictionary"),
        (b"[1]", "application/json", 400, "JSON dictionary"),
        (b"\xff\xfe", "application/json", 400, "valid JSON"),
        (b"[" * 100_000, "application/json", 400, "the form of a request is"),
        (b'{"dataframe_records": 5}', "application/json", 400, "list of records"),
        (b'{"dataframe_records": [{"x": 1}]}', "application/json", 400, "missing inputs"),
        (b'{"instances": 5}', "application/json", 400, "missing inputs"),
        (b"image\nx\n", "text/csv", 415, "Content-Type must be application/json, got text/csv"),
        (b"x", None, 415, "Content-Type must be application/json, got none"),
        (b"x", "application/vnd.apache.parquet", 400, "Parquet"),
        (bytes(40_000_001), "application/json", 413, "at most 40 MB"),
    ],
)
def test_a_request_that_cannot_be_read_gets_one_line(
    url: str, body: bytes, kind: str | None, status: int, message: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    done = requests.post(url, data=body, headers=headers, timeout=60)
    assert done.status_code == status, done.text
    assert message in done.json()["error"]
    assert list(done.json()) == ["error"]
    assert "Traceback" not in done.text
    assert len(done.text) < 1000


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
        (SMALL_PARQUET, "application/vnd.apache.parquet", "at most 10000 rows, got 2000000"),
        (
            LARGE_PARQUET,
            "application/vnd.apache.parquet",
            "at most 40 MB when decompressed",
        ),
        (RECORDS, "application/json", "at most 10000 rows, got 500000"),
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


def test_the_page_says_what_is_served(url: str, browser: Any, tmp_path: Path) -> None:
    for path in ("/", "/docs"):
        browser.get(url.replace("/invocations", path))
        text = browser.find_element("tag name", "body").text
        assert "one of 10 classes: 0, 1, 2" in text
        assert "10000 rows and 40 MB, an image file 25 MB" in text
    image = tmp_path / "photo.png"
    image.write_bytes(CONTENT[next(iter(CONTENT))])
    command = browser.find_elements("tag name", "pre")[1].text
    command = command.replace("http://HOST:PORT/invocations", url).replace("photo.jpg", str(image))
    answer = json.loads(subprocess.check_output(["sh", "-c", command], text=True))
    assert answer["predictions"][0]["prediction"]
    assert not [item for item in browser.get_log("browser") if item["level"] == "SEVERE"]


def test_work_ends_with_its_request_and_with_the_server(promoted: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")  # small to send, slow to decode
    slow = {"dataframe_records": [{"image": encoded(file.getvalue())}] * 900}
    limits = ("serve.timeout_s=2", "serve.max_request_mb=400")
    with listening(promoted, "serve", *limits) as (address, _):
        port = int(address.rpartition(":")[2])
        (server,) = {
            item.pid for item in psutil.net_connections() if item.laddr and item.laddr.port == port
            and item.status == psutil.CONN_LISTEN
        }  # fmt: skip
        worker = psutil.Process(server)
        body = json.dumps(slow).encode()
        headers = {"Content-Type": "application/json"}
        done = requests.post(f"{address}/invocations", data=body, headers=headers, timeout=120)
        assert done.status_code == 504, done.text
        deadline = time.monotonic() + 60
        while worker.cpu_percent(1) > 20:
            assert time.monotonic() < deadline, "the work goes on"
        rows = ask(f"{address}/invocations", [next(iter(map(encoded, CONTENT.values())))])
        assert rows[0]["error"] is None, "others are answered as before"
        with ThreadPoolExecutor() as clients:
            waiting = clients.submit(
                requests.post, f"{address}/invocations", data=body, headers=headers, timeout=120
            )
            time.sleep(1.5)
            for parent in worker.parents():
                if "mlflow" in " ".join(parent.cmdline()) and "serve" in parent.cmdline():
                    parent.terminate()
                    break
            psutil.wait_procs([worker], timeout=30)
            assert not worker.is_running(), "the worker outlives its parent"
            waiting.exception()


def test_a_body_of_unknown_length_is_cut_off(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(1_000_000)

    done = requests.post(
        url, data=endless(), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert done.status_code == 413
