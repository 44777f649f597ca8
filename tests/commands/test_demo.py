"""The demo page in a real browser: an upload, an example, many at once, invalid files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from conftest import Run, listening
from mlflow import MlflowClient
from PIL import Image

from pipeline.intake.sources import digits

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

IMAGES = list(digits.images(digits.Config()))


@pytest.fixture(scope="module")
def model(repository: Path) -> str:
    """The model that fine-tuning logged."""
    (actual,) = MlflowClient(f"sqlite:///{repository / 'mlflow.db'}").search_logged_models(["1"])
    return f"demo.model=models:/{actual.model_id}"


@pytest.fixture(scope="module")
def page(repository: Path, model: str) -> Iterator[str]:
    """Address of the page."""
    with listening(repository, "demo", model) as (address, _):
        yield address


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    for place, image in enumerate(IMAGES[:40]):
        (folder / f"{place:02}.png").write_bytes(image.content)
    return sorted(folder.iterdir())


def predicted(repository: Path, run: Run, files: list[Path]) -> list[dict[str, Any]]:
    words = ("predict", "--json", *map(str, files))
    done = run(repository, sys.executable, "-m", "pipeline", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_in_a_browser(
    page: str, repository: Path, run: Run, browser: Any, files: list[Path], tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page)
    wait = WebDriverWait(browser, 60)

    def drop(path: Path) -> None:
        wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "input[type=file]"))
        browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))

    def text() -> str:
        return str(browser.find_element(By.TAG_NAME, "body").text)

    wait.until(lambda _: "Test images" in text())
    assert len(browser.find_elements(By.CSS_SELECTOR, ".gallery img, .gallery-item img")) == 10
    drop(files[3])
    (message,) = predicted(repository, run, [files[3]])
    sure = round(100 * message["probabilities"][message["prediction"]])
    wait.until(lambda _: f"{message['prediction']}\n{sure}%" in text())
    wide = "return [...document.images].some(one => one.naturalWidth == 320)"
    wait.until(lambda b: b.execute_script(wide))
    browser.get(page)
    examples = (By.CSS_SELECTOR, ".gallery img, .gallery-item img")
    wait.until(lambda b: len(b.find_elements(*examples)) == 10)
    browser.find_elements(*examples)[4].click()
    wait.until(lambda _: "\n4\n" in text().partition("Probabilities")[2])
    drop(files[3])  # into the same page
    wait.until(lambda _: f"{message['prediction']}\n{sure}%" in text())
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    browser.get(page)
    drop(bad)
    wait.until(lambda _: "Not classified: not an image: no decoder" in text())
    left = run(repository, "git", "status", "--porcelain", "pipeline").stdout
    assert left == "", "nothing is written beside the code"


def test_many_at_once_get_what_predict_says(
    page: str, repository: Path, run: Run, files: list[Path]
) -> None:
    from gradio_client import Client, handle_file

    client = Client(page, verbose=False)
    jobs = [client.submit(handle_file(str(path)), api_name="/predict") for path in files]
    expected = predicted(repository, run, files)
    for path, job, message in zip(files, jobs, expected, strict=True):
        label, heat, reason = job.result(timeout=120)
        assert label["label"] == message["prediction"], path
        sure = {item["label"]: item["confidence"] for item in label["confidences"]}
        assert sure == {name: message["probabilities"][name] for name in sure}
        assert reason.startswith("**Unknown**") == (not message["known"])
        assert np.asarray(Image.open(heat)).shape == (320, 320, 3)


def test_nobody_has_a_file_of_the_server_read(page: str, files: list[Path]) -> None:
    named = {"path": str(files[0]), "meta": {"_type": "gradio.FileData"}}  # never uploaded
    call = f"{page}/gradio_api/call/predict"
    event = requests.post(call, json={"data": [named]}, timeout=60).json()["event_id"]
    message = requests.get(f"{call}/{event}", timeout=60).text
    assert message.startswith("event: error"), message


def test_without_gradio_and_on_a_port_that_is_taken(
    repository: Path, run: Run, page: str, model: str
) -> None:
    script = (
        "import sys; sys.modules['gradio'] = None\n"
        "from pipeline.__main__ import main; sys.exit(main(['demo']))"
    )
    done = run(repository, sys.executable, "-c", script)
    assert done.returncode == 1
    assert done.stderr == "error: the page needs Gradio: pip install 'gradio~=6.31'\n"
    port = page.rpartition(":")[2]
    done = run(repository, sys.executable, "-m", "pipeline", "demo", f"demo.port={port}", model)
    assert done.returncode == 1
    assert f"error: demo.port={port} is not available on 127.0.0.1" in done.stderr
