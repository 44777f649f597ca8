"""check: images like the training data pass, others are reported, and the page shows them."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image
from served import CONTENT

COUNT = 150


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """Images like the training data."""
    folder = tmp_path / "usual"
    folder.mkdir()
    names = np.random.default_rng(0).permutation(sorted(CONTENT))[:COUNT]
    for name in names:
        (folder / name.replace("/", "_")).write_bytes(CONTENT[name])
    return folder


@pytest.fixture
def dark(usual: Path, tmp_path: Path) -> Path:
    """The same images, darkened."""
    folder = tmp_path / "dark"
    folder.mkdir()
    for path in sorted(usual.iterdir()):
        pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())), np.float32)
        Image.fromarray((pixels * 0.4).astype(np.uint8)).save(folder / path.name)
    (folder / "notes.txt").write_text("no image")
    return folder


def check(repository: Path, run: Run, *words: str) -> Any:
    return run(repository, sys.executable, "-m", "pipeline", "check", *words)


def test_usual_images_pass(repository: Path, run: Run, usual: Path, tmp_path: Path) -> None:
    done = check(repository, run, str(usual), "--page", str(tmp_path / "check.html"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "These images do not differ measurably from the training data." in done.stdout


@pytest.mark.slow
def test_images_are_shown_as_the_model_decodes_them(
    clone: Path, run: Run, dark: Path, tmp_path: Path
) -> None:
    words = ("data.pages=first", "tracking.enabled=false")
    for stage in ("prepare", "extract_features", "train_head", "finetune"):
        done = run(clone, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
    for path in sorted(dark.glob("*.png"))[:40]:
        image = Image.open(path)
        image.save(path.with_suffix(".tif"), save_all=True, append_images=[image])
    page = tmp_path / "new" / "folder" / "check.html"
    done = check(clone, run, str(dark), "--page", str(page))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert ".tif" in page.read_text()


def test_a_change_is_told_and_shown(
    repository: Path, run: Run, dark: Path, tmp_path: Path, browser: Any
) -> None:
    page = tmp_path / "check.html"
    done = check(repository, run, str(dark), "--page", str(page))
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    differs = {line.split()[0] for line in lines if line.endswith("differs")}
    assert {"brightness", "strangeness"} <= differs
    assert "width" not in differs
    assert "1 files are not images" in done.stdout
    browser.get(f"file://{page}")
    images = browser.find_elements("css selector", "img")
    assert len(images) == 25, "the distributions and the 24 strangest"
    assert all(int(image.get_property("naturalWidth")) for image in images)
    assert "brightness" in browser.find_element("css selector", ".verdict").text


def test_too_few_to_tell(repository: Path, run: Run, usual: Path, tmp_path: Path) -> None:
    few = sorted(usual.iterdir())[:5]
    done = check(repository, run, *map(str, few), "--page", str(tmp_path / "check.html"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: check needs at least 10 images")
    assert not (tmp_path / "check.html").exists()
