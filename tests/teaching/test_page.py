"""The labelling page in a real browser: keys, a new class, a killed server, nothing lost."""

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from conftest import Run
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from pipeline.intake import label_file, sources
from pipeline.intake.sources.csv import Config

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
IMAGES = 240


@pytest.fixture
def photos(project: Path) -> Path:
    """Noisy images of three colours in one folder, their colour in no file name."""
    rng, folder = np.random.default_rng(0), project / "photos"
    folder.mkdir()
    for number in range(IMAGES):
        colour = np.array(list(COLOURS.values())[number % 3])
        noise = rng.integers(-30, 30, (24, 24, 3))
        Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def colour_of(folder: Path, name: str) -> str:
    mean = np.asarray(Image.open(folder / name)).reshape(-1, 3).mean(axis=0)
    return list(COLOURS)[int(mean.argmax())]


@contextmanager
def labelling(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The page of `label` on a port, with the little network of the tests."""
    command = [sys.executable, "-m", "pipeline", "label", "photos", "--backbone", "glyph_cnn"]
    log = folder / "label.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while f"http://127.0.0.1:{port}" not in log.read_text() or not answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield server
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/state", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def state(port: int) -> dict[str, Any]:
    values: dict[str, Any] = requests.get(f"http://127.0.0.1:{port}/state", timeout=5).json()
    return values


def press(browser: Any, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def current(browser: Any) -> str:
    """The image to label, once it is on the page."""

    def named(_: Any) -> str:
        text = browser.find_element("id", "path").text
        return text if text.endswith(".png") else ""

    return str(WebDriverWait(browser, 30).until(named))


def classes(browser: Any) -> list[str]:
    script = (
        "return [...document.querySelectorAll('#classes button')].map(b => b.childNodes[1].data)"
    )
    return list(browser.execute_script(script))


def label(browser: Any, folder: Path) -> None:
    """Label the image on the page by a key, or by its name if its class is new."""
    path = current(browser)
    name, present = colour_of(folder, path), classes(browser)
    if name in present:
        press(browser, str(present.index(name) + 1))
    else:
        press(browser, *name, Keys.ENTER)
    WebDriverWait(browser, 30).until(
        lambda _: browser.find_element("id", "path").text != path and name in classes(browser)
    )


def test_two_hundred_labels_a_new_class_and_a_killed_server(
    photos: Path, port: int, browser: Any, tmp_path: Path
) -> None:
    project, path = photos.parent, photos / "labels.csv"
    with labelling(project, port) as server:
        browser.get(f"http://127.0.0.1:{port}")
        for _ in range(100):
            label(browser, photos)
        press(browser, *"strange", Keys.ENTER)  # a class added midway
        WebDriverWait(browser, 30).until(lambda _: "strange" in classes(browser))
        press(browser, Keys.BACKSPACE)
        WebDriverWait(browser, 30).until(lambda _: "strange" not in classes(browser))
        skipped = current(browser)
        press(browser, " ")
        WebDriverWait(browser, 30).until(lambda _: current(browser) != skipped)
        assert state(port)["labelled"] == 100
        server.kill()
        server.wait()
        before = path.read_text()
        press(browser, "1")
        message = browser.find_element("id", "error")
        WebDriverWait(browser, 30).until(lambda _: "start it again" in message.text)
    with labelling(project, port):
        assert path.read_text() == before
        browser.refresh()
        WebDriverWait(browser, 30).until(lambda _: len(classes(browser)) == 3)
        for _ in range(100):
            label(browser, photos)
        WebDriverWait(browser, 30).until(lambda _: state(port)["labelled"] == 200)
        values = state(port)
        assert values["accuracy"][0] > 0.95
        assert len(values["curve"]) > 3
        browser.save_screenshot(str(tmp_path / "label.png"))
        assert "200 of 240" in browser.find_element("id", "progress").text
        assert browser.find_elements("css selector", "#curve polyline")
        severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
        assert all("ERR_CONNECTION_REFUSED" in line["message"] for line in severe), severe
    listed = {item.path: item.label for item in sources.images(Config(path=str(path)))}
    every = [f"{number}.png" for number in range(IMAGES)]
    assert len(listed) == 200
    tested = [item.path for item in sources.images(Config(path=str(path))) if item.split == "test"]
    drawn = [name for place, name in enumerate(every) if place in label_file.held_out(every)]
    assert 38 <= len(tested) <= 40, "every fifth label, less one or two on their way"
    assert set(tested) == set(drawn) & set(listed), "and none of them because it was useful"
    assert all(label == colour_of(photos, name) for name, label in listed.items())
    with path.open() as file:
        times = [float(row["seconds"]) for row in csv.DictReader(file) if row["label"]]
    assert all(0 <= seconds < 60 for seconds in times)


def test_similar_images_are_labelled_together_and_doubts_looked_at(
    photos: Path, port: int, browser: Any
) -> None:
    with labelling(photos.parent, port):
        browser.get(f"http://127.0.0.1:{port}")
        for _ in range(12):
            label(browser, photos)
        name = colour_of(photos, current(browser))
        press(browser, Keys.TAB)
        script = "return [...document.querySelectorAll('#grid img')].map(i => i.alt)"
        WebDriverWait(browser, 30).until(lambda _: browser.execute_script(script))
        grid = list(browser.execute_script(script))
        others = [n for n, path in enumerate(grid) if colour_of(photos, path) != name] or [0]
        buttons = browser.find_elements("css selector", "#grid button")
        for place in others:
            buttons[place].click()
        press(browser, str(classes(browser).index(name) + 1))
        expected = 12 + len(grid) - len(others)
        WebDriverWait(browser, 30).until(lambda _: state(port)["labelled"] == expected)
        for row in range(60, 120):  # one wrong label among many is offered for a second look
            body = {"paths": [f"{row}.png"], "label": colour_of(photos, f"{row}.png")}
            assert requests.post(f"http://127.0.0.1:{port}/label", json=body, timeout=30).ok
        wrong = {"paths": ["60.png"], "label": "blue"}
        assert colour_of(photos, "60.png") != "blue"
        requests.post(f"http://127.0.0.1:{port}/label", json=wrong, timeout=30)
        doubt = "#doubts img[src$='=60.png']"
        WebDriverWait(browser, 30).until(lambda _: browser.find_elements("css selector", doubt))
        click = "document.querySelector(arguments[0]).closest('button').click()"
        browser.execute_script(click, doubt)  # at once: the list is drawn anew all the time
        assert current(browser) == "60.png"
        press(browser, Keys.ENTER)  # the guess
        WebDriverWait(browser, 30).until(
            lambda _: dict(state(port)["classes"])["blue"] == Counter(labels(photos))["blue"]
        )
        assert labels(photos).count("blue") == sum(
            colour_of(photos, name) == "blue" for name in listed(photos)
        )


def listed(folder: Path) -> dict[str, str]:
    return {i.path: i.label for i in sources.images(Config(path=str(folder / "labels.csv")))}


def labels(folder: Path) -> list[str]:
    return list(listed(folder).values())


def test_no_label_waits_for_the_head(photos: Path, port: int) -> None:
    with labelling(photos.parent, port):
        started = time.monotonic()
        for number in range(IMAGES):
            name = f"{number}.png"
            body = {"paths": [name], "label": colour_of(photos, name), "seconds": 0.1}
            done = requests.post(f"http://127.0.0.1:{port}/label", json=body, timeout=30)
            assert done.ok, done.text
        seconds = time.monotonic() - started
        print(f"{60 * IMAGES / seconds:.0f} images a minute")
        assert len(listed(photos)) == IMAGES
        for path, body in (
            ("label", {"paths": ["no.png"], "label": "red"}),
            ("label", {"paths": ["1.png"], "label": "RED"}),
            ("skip", {"path": "no.png"}),
        ):
            done = requests.post(f"http://127.0.0.1:{port}/{path}", json=body, timeout=30)
            assert done.status_code == 422
            assert list(done.json()) == ["error"]
        (photos / "2.png").unlink()
        gone = requests.get(f"http://127.0.0.1:{port}/image?path=2.png", timeout=30)
        assert "No such file" in gone.json()["error"]
        done = requests.get(
            f"http://127.0.0.1:{port}/", headers={"Host": "evil.example"}, timeout=9
        )
        assert done.status_code == 400
        before = listed(photos)
        foreign = {"Origin": "http://evil.example"}
        done = requests.post(f"http://127.0.0.1:{port}/undo", headers=foreign, timeout=9)
        assert done.status_code == 403
        assert listed(photos) == before
        body = {"paths": ["4.png", "5.png", "6.png"], "label": "red"}
        requests.post(f"http://127.0.0.1:{port}/label", json=body, timeout=30)
        undone = requests.post(f"http://127.0.0.1:{port}/undo", timeout=30).json()
        assert undone["path"] == "4.png"
        assert listed(photos) == before, "all images that were labelled together"
        (photos / "3.png").write_text("no image any more")
        bad = requests.get(f"http://127.0.0.1:{port}/image?path=3.png", timeout=30)
        assert bad.status_code == 422


def test_every_image_comes_also_if_many_are_skipped(photos: Path, port: int) -> None:
    with labelling(photos.parent, port):
        session = state(port)["session"]
        seen: set[str] = set()
        deadline = time.monotonic() + 120
        while len(seen) < IMAGES:
            assert time.monotonic() < deadline, f"{len(seen)} of {IMAGES}"
            for item in state(port)["queue"]:
                seen.add(item["path"])
                body = {"path": item["path"]}
                requests.post(f"http://127.0.0.1:{port}/skip", json=body, timeout=30)
    with labelling(photos.parent, port):
        assert state(port)["session"] != session, "browsers keep images of another folder"


def test_suggestions_for_another_tool(photos: Path, run: Run) -> None:
    words = [sys.executable, "-m", "pipeline", "suggest", "photos", "--backbone", "glyph_cnn"]
    done = run(photos.parent, *words, "-n", "6")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 6
    assert {colour_of(photos, row["path"]) for row in rows} == set(COLOURS)
    lines = [f"{row['path']},{colour_of(photos, row['path'])},2026-01-01,1" for row in rows]
    (photos / "labels.csv").write_text("\n".join(["path,label,time,seconds", *lines]) + "\n")
    done = run(photos.parent, *words, "-n", "6", "--label-studio")
    tasks = json.loads(done.stdout)
    assert len(tasks) == 6
    assert not {task["data"]["image"] for task in tasks} & {row["path"] for row in rows}
    choices = [task["predictions"][0]["result"][0]["value"]["choices"][0] for task in tasks]
    assert set(choices) <= set(COLOURS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["suggest", "nowhere"], "no such folder: nowhere"),
        (["label", "nowhere"], "no such folder: nowhere"),
        (["suggest", "empty"], "no images in empty"),
        (["label", "broken"], "none of 1 files is an image: no.png is"),
        (["suggest", "photos", "-n", "0"], "-n must be at least 1, got 0"),
        (["label", "photos", "--labels", "empty/l.csv"], "--labels must name a file in photos"),
        (["suggest", "photos", "--labels", "photos/0.png"], "must be a csv file in UTF-8"),
    ],
)
def test_bad_input_is_one_line(photos: Path, run: Run, words: list[str], message: str) -> None:
    project = photos.parent
    (project / "empty").mkdir()
    (project / "broken").mkdir()
    (project / "broken/no.png").write_text("no image")
    done = run(project, sys.executable, "-m", "pipeline", *words, "--backbone", "glyph_cnn")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "nowhere").exists(), "a mistyped name makes no folder"
