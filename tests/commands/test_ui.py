"""Two experiments compared in the MLflow UI, in a real browser."""

import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, listening
from mlflow import MlflowClient
from PIL import Image

pytestmark = pytest.mark.slow


def text_of(browser: object, url: str, *awaited: str) -> str:
    """Return the page's text once it contains the expected words."""
    browser.get("about:blank")
    browser.get(url)
    text = ""
    for _ in range(60):
        text = browser.find_element("tag name", "body").text
        if all(part in text for part in awaited):
            return text
        time.sleep(1)
    pytest.fail(f"{url} does not show {awaited}, but: {text}")


def test_two_experiments_are_compared(clone: Path, run: Run, browser: object) -> None:
    path = clone / "params.yaml"
    path.write_text(path.read_text().replace("cut: block2_conv1", "cut: none"))
    assert run(clone, "dvc", "repro").returncode == 0
    with listening(clone, "ui", setting="tracking") as (address, log):
        assert f"MLflow UI: {address} (" in log.read_text()
        client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
        (experiment,) = [e for e in client.search_experiments() if e.name == "pipeline"]
        base, number = f"{address}/#", experiment.experiment_id
        parents = client.search_runs([number], "tags.`pipeline.state` != ''")
        assert len(parents) == 2
        views = re.findall(r"(\w+): (http\S+)", log.read_text().partition("\n")[2])
        assert [name for name, _ in views] == ["experiments", "sweeps"]
        tall = browser.get_window_size()
        browser.set_window_size(1600, 900)
        name = "cut=none (digits)"
        table = text_of(browser, dict(views)["experiments"], name, "interval")
        page_lines = [line.strip() for line in table.splitlines()]
        assert "train_head" not in page_lines, "parents alone"
        for parent in parents:
            assert parent.data.tags["interval"] in page_lines
            assert "compared with head only" in parent.data.tags["mlflow.note.content"]
            curve = client.get_metric_history(parent.info.run_id, "curves/val_loss")
            assert len(curve) > 20
            tables = [item.path for item in client.list_artifacts(parent.info.run_id, "tables")]
            assert {"tables/per_class.json", "tables/mistakes.json"} <= set(tables)
        assert {parent.info.run_name for parent in parents} == {"digits glyph_cnn", name}
        assert text_of(browser, dict(views)["sweeps"], "All runs are filtered")
        browser.set_window_size(tall["width"], tall["height"])
        quoted = ",".join(f"%22{parent.info.run_id}%22" for parent in parents)
        url = f"{base}/compare-runs?runs=%5B{quoted}%5D&experiments=%5B%22{number}%22%5D"
        page = text_of(browser, url, "Comparing 2 Runs", "fine_tuning_gain_accuracy")
        assert "finetune.cut" in page
        for parent in parents:
            assert f"{parent.data.metrics['test_accuracy_fine_tuned']:.3f}"[:5] in page
        image = browser.get_screenshot_as_png()
        pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
        assert pixels.shape[0] > 3000
        assert pixels.std() > 10, "the page is not blank"
