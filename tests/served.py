"""The finished pipeline's model, promoted and served."""

import base64
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from conftest import copied, listening, made_once, run_in

from pipeline.intake.sources import digits
from pipeline.serving.classifier import Classifier
from pipeline.serving.pyfunc import Service

MAX_BYTES = 2_000_000
CONTENT = {item.path: item.content for item in digits.images(digits.Config())}


@pytest.fixture(scope="module")
def expected(repository: Path) -> dict[str, dict[str, float]]:
    """Test image -> class -> probability, as evaluate wrote them."""
    with (repository / "outputs/evaluate/predictions.csv").open() as file:
        return {
            row["path"]: {
                name: float(np.float32(row[f"probability_{name}"])) for name in map(str, range(10))
            }
            for row in csv.DictReader(file)
        }


@pytest.fixture(scope="session")
def promoted(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished pipeline whose model is the champion. Read only."""

    def make(folder: Path) -> None:
        done = run_in(copied(repository, folder), sys.executable, "-m", "pipeline", "promote")
        assert done.returncode == 0, done.stderr

    finished = made_once(tmp_path_factory, "champion", make)
    return copied(finished, tmp_path_factory.mktemp("promoted") / "project")


@pytest.fixture(scope="session")
def url(promoted: Path) -> Iterator[str]:
    """Address of a running `serve`."""
    with listening(promoted, "serve", "serve.max_request_mb=40") as (address, _):
        yield f"{address}/invocations"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def ask(url: str, values: list[Any]) -> list[dict[str, Any]]:
    rows = [{"image": value} for value in values]
    done = requests.post(url, json={"dataframe_records": rows}, timeout=60)
    assert done.status_code == 200, done.text
    return list(json.loads(done.text, parse_constant=pytest.fail)["predictions"])


@pytest.fixture(scope="module")
def service(repository: Path) -> Service:
    return Service(Classifier(repository / "outputs/finetune/model.keras"), MAX_BYTES)


def insist_on_a_line(done: requests.Response, status: int, message: str) -> None:
    assert done.status_code == status, done.text
    assert message in done.json()["error"]
    assert list(done.json()) == ["error"]
    assert "Traceback" not in done.text
    assert len(done.text) < 1000
