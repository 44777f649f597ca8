"""The server itself: page, token, metrics, several workers, and its end."""

import io
import json
import re
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from conftest import listening
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from served import CONTENT, ask, encoded, insist_on_a_line

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("served")]


def listener(address: str) -> psutil.Process:
    """The process that listens on the port of an address."""
    port = int(address.rpartition(":")[2])
    (pid,) = {
        item.pid
        for item in psutil.net_connections()
        if item.laddr and item.laddr.port == port and item.status == psutil.CONN_LISTEN
    }
    return psutil.Process(pid)


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


def test_work_ends_with_its_request_and_with_the_server(promoted: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")  # small to send, slow to decode
    slow = {"images": [encoded(file.getvalue())] * 900}
    limits = ("serve.timeout_s=2", "serve.max_request_mb=400")
    with listening(promoted, "serve", *limits) as (address, log):
        worker, port = listener(address), int(address.rpartition(":")[2])
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
        with socket.create_connection(("127.0.0.1", port)) as gone:
            gone.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n123")
        requests.get(f"{address}/health", timeout=60)
        assert "Traceback" not in log.read_text(), "a client that leaves is no failure"
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
        running = clients.submit(requests.post, f"{address}/predict", files=body, timeout=120)
        time.sleep(1.5)
        assert not running.done()
        listener(address).terminate()
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
