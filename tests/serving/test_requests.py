"""Requests of every size and form: answers, limits, messages, cancelled work, the page."""

import io
import json
import re
import socket
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
import yaml
from conftest import listening
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from served import CONTENT, ask, encoded

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


def insist_on_a_line(done: requests.Response, status: int, message: str) -> None:
    assert done.status_code == status, done.text
    assert message in done.json()["error"]
    assert list(done.json()) == ["error"]
    assert "Traceback" not in done.text
    assert len(done.text) < 1000


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


def test_what_a_program_can_ask_about_the_server(url: str, promoted: Path) -> None:
    address = url.removesuffix("/invocations")
    for path in ("/health", "/ready", "/ping"):
        assert requests.get(address + path, timeout=60).json() == {"status": "ok"}
    about = requests.get(f"{address}/version", timeout=60).json()
    locked = yaml.safe_load((promoted / "dvc.lock").read_text())["stages"]["prepare"]
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=promoted, text=True)
    assert about["model"] == "models:/classifier@champion"
    assert (about["version"], about["commit"]) == ("1", commit.strip())
    assert about["data"] == locked["outs"][0]["md5"]
    assert about["classes"] == [str(digit) for digit in range(10)]
    described = requests.get(f"{address}/openapi.json", timeout=60).json()["paths"]
    assert requests.get(f"{address}/examples/3", timeout=60).content.startswith(b"\x89PNG")
    for path in ("/examples/10", "/examples/-1", "/examples/x", "/nowhere"):
        done = requests.get(address + path, timeout=60)
        assert (done.status_code, list(done.json())) == (404, ["error"])
    assert {"/predict", "/invocations", "/explain", "/health", "/version"} <= set(described)
    assert "multipart/form-data" in described["/predict"]["post"]["requestBody"]["content"]

    def counted(outcome: str) -> float:
        text = requests.get(f"{address}/metrics", timeout=60).text
        name = f'classifier_images_total{{outcome="{outcome}"}} '
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.removeprefix(name)) for line in lines)

    before = counted("error"), counted("known") + counted("unknown")
    ask(url, ["x", "y", *map(encoded, list(CONTENT.values())[:3])])
    assert (counted("error"), counted("known") + counted("unknown")) == (
        *(before[0] + 2, before[1] + 3),
    )


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
        (
            LARGE_PARQUET,
            "application/vnd.apache.parquet",
            "at most 40 MB when decompressed",
        ),
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


def test_work_ends_with_its_request_and_with_the_server(promoted: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")  # small to send, slow to decode
    slow = {"images": [encoded(file.getvalue())] * 900}
    limits = ("serve.timeout_s=2", "serve.max_request_mb=400")
    with listening(promoted, "serve", *limits) as (address, _):
        port = int(address.rpartition(":")[2])
        worker = psutil.Process(
            next(
                item.pid
                for item in psutil.net_connections()
                if item.laddr and item.laddr.port == port and item.status == psutil.CONN_LISTEN
            )
        )
        body = json.dumps(slow).encode()
        headers = {"Content-Type": "application/json"}
        done = requests.post(f"{address}/predict", data=body, headers=headers, timeout=120)
        insist_on_a_line(done, 504, "the answer took longer than 2 s")
        deadline = time.monotonic() + 60
        while worker.cpu_percent(1) > 20:
            assert time.monotonic() < deadline, "the work goes on"
        rows = ask(f"{address}/invocations", [next(iter(map(encoded, CONTENT.values())))])
        assert rows[0]["error"] is None, "others are answered as before"
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123")
            idle.settimeout(60)
            assert idle.recv(100).startswith(b"HTTP/1.1 408")
        with ThreadPoolExecutor() as clients:
            waiting = clients.submit(
                requests.post, f"{address}/predict", data=body, headers=headers, timeout=120
            )
            time.sleep(1.5)
            worker.terminate()
            psutil.wait_procs([worker], timeout=60)
            assert not worker.is_running(), "the server does not end"
            waiting.exception()


def test_a_running_request_is_finished_when_the_server_stops(promoted: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")
    body = [("file", file.getvalue())] * 8
    with listening(promoted, "serve") as (address, _), ThreadPoolExecutor() as clients:
        port = int(address.rpartition(":")[2])
        (server,) = {
            item.pid
            for item in psutil.net_connections()
            if item.laddr and item.laddr.port == port and item.status == psutil.CONN_LISTEN
        }
        running = clients.submit(requests.post, f"{address}/predict", files=body, timeout=120)
        time.sleep(1.5)
        assert not running.done()
        psutil.Process(server).terminate()
        time.sleep(0.3)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{address}/health", timeout=5)
        assert [row["error"] for row in running.result().json()["predictions"]] == [None] * 8


def test_only_who_has_the_token_is_answered_by_any_of_two_workers(
    promoted: Path, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(next(iter(CONTENT.values())))
    monkeypatch.setenv("SERVE_TOKEN", "s3cret-token")
    words = ("serve.token=${{oc.env:SERVE_TOKEN}}", "serve.workers=2")
    with listening(promoted, "serve", *words) as (address, log):
        processes = [
            " ".join(item.info["cmdline"] or ()) for item in psutil.process_iter(["cmdline"])
        ]
        assert not [line for line in processes if "s3cret-token" in line]
        for path in ("/predict", "/explain", "/invocations"):
            for token in (None, "Bearer", "Bearer x", "Basic s3cret-token", "s3cret-token"):
                headers = {"Authorization": token} if token else {}
                done = requests.post(
                    address + path, data=image.read_bytes(), headers=headers, timeout=60
                )
                insist_on_a_line(done, 401, "needs the header Authorization: Bearer TOKEN")
        for path in ("/version", "/metrics", "/examples/0"):
            assert requests.get(address + path, timeout=60).status_code == 401
        for path in ("/health", "/ready", "/"):
            assert requests.get(address + path, timeout=60).status_code == 200
        headers = {"Authorization": "Bearer s3cret-token"}

        def answered(_: int) -> int:
            done = requests.post(
                f"{address}/predict", data=image.read_bytes(), headers=headers, timeout=60
            )
            return len(done.json()["predictions"])

        with ThreadPoolExecutor(8) as clients:
            assert sum(clients.map(answered, range(40))) == 40
        text = requests.get(f"{address}/metrics", headers=headers, timeout=60).text
        lines = [line for line in text.splitlines() if line.startswith("classifier_images_total")]
        assert sum(float(line.split()[-1]) for line in lines) == 40, "of both workers together"
        browser.get(address)
        wait = WebDriverWait(browser, 60)
        wait.until(lambda b: b.find_element(By.ID, "token").is_displayed())
        browser.find_element(By.ID, "token").send_keys("s3cret-token\n")
        wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#examples img")) == 10)
        assert "s3cret-token" not in log.read_text()


def test_the_page(
    url: str, promoted: Path, browser: Any, expected: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    browser.get(url.removesuffix("invocations"))
    wait = WebDriverWait(browser, 60)

    def drop(name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / name))

    def text() -> str:
        return str(browser.find_element(By.TAG_NAME, "main").text)

    wait.until(lambda _: "one of 10 classes: 0, 1, 2" in text())
    wait.until(lambda b: len(b.find_elements(By.CSS_SELECTOR, "#examples img")) == 10)
    assert "A request may have 10000 images and 40 MB, an image file 25 MB." in text()
    heated = "const map = document.getElementById('map'); return map.naturalWidth == 8"
    name = next(iter(expected))
    prediction, probability = max(expected[name].items(), key=lambda item: item[1])
    answered = f"{prediction} {100 * probability:.1f} %"
    drop(Path(name).name, CONTENT[name])
    wait.until(lambda _: answered in text())
    wait.until(lambda b: b.execute_script(heated))
    drop("odd.png", (Path(__file__).parents[2] / "docs/ui.png").read_bytes())
    wait.until(lambda _: "Unknown: this image is unlike the training images" in text())
    drop("bad.png", b"no image")
    wait.until(lambda _: "Not classified: not an image: no decoder" in text())
    example = browser.find_elements(By.CSS_SELECTOR, "#examples button")[4]
    browser.execute_script("arguments[0].focus()", example)
    example.send_keys(" ")  # by keyboard
    wait.until(lambda _: re.search(r"^4 \d+\.\d %$", text(), re.MULTILINE))
    paste = """
        const done = arguments[1], text = atob(arguments[0]);
        const bytes = Uint8Array.from(text, c => c.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "pasted.png", {type: "image/png"}));
        document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data}));
        done();"""
    browser.execute_async_script(paste, encoded(CONTENT[name]))
    wait.until(lambda _: answered in text())
    severe = [item["message"] for item in browser.get_log("browser") if item["level"] == "SEVERE"]
    assert not severe
    command = browser.find_element(By.ID, "curl").text.splitlines()[1]
    command = command.replace("a.jpg", str(tmp_path / Path(name).name))
    answer = json.loads(subprocess.check_output(["sh", "-c", command], text=True))
    assert answer["predictions"][0]["probabilities"] == expected[name]


def test_a_body_of_unknown_length_is_cut_off(url: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield bytes(1_000_000)

    done = requests.post(
        url, data=endless(), headers={"Content-Type": "application/json"}, timeout=60
    )
    assert done.status_code == 413
