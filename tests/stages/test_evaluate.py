"""Metrics of evaluate equal scikit-learn's; its files and pages are complete."""

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image
from selenium.webdriver import ActionChains
from sklearn import metrics as sk

from pipeline.data.tasks import calibration, facts
from pipeline.evaluation import resampling
from pipeline.storage.outputs import ROOT, STAGES


def some(classes: int, images: int, seed: int = 0) -> tuple[facts.Labels, Any]:
    """Labels, and probabilities that are right more often than not, with ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=images)
    logits = rng.normal(size=(images, classes))
    logits[np.arange(images), labels] += 1.5
    values = np.exp(logits)
    rounded = np.round(values / values.sum(axis=1, keepdims=True), 2) + 0.001
    return labels, (rounded / rounded.sum(axis=1, keepdims=True)).astype(np.float32)


def by_scikit_learn(labels: facts.Labels, scores: Any) -> dict[str, float]:
    """The metrics by scikit-learn alone, of labels (N,) and probabilities (N, K)."""
    scores = scores.astype(np.float64)
    scores = scores / scores.sum(axis=1, keepdims=True)
    classes = np.arange(scores.shape[1])
    predicted = scores.argmax(axis=1)
    right = labels == predicted
    places = np.minimum((scores.max(axis=1) * 15).astype(int), 14)
    gaps = [
        abs(right[places == b].mean() - scores.max(axis=1)[places == b].mean())
        * (places == b).mean()
        for b in set(places)
    ]
    areas = [sk.roc_auc_score(labels == k, scores[:, k]) for k in classes if (labels == k).any()]
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "macro_f1": sk.f1_score(
            labels, predicted, labels=classes, average="macro", zero_division=0
        ),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "log_loss": sk.log_loss(labels, scores, labels=classes),
        "brier": sk.brier_score_loss(labels, scores, labels=classes, scale_by_half=True),
        "calibration_error": float(sum(gaps)),
        "roc_auc": float(np.mean(areas)),
    }
    if len(classes) > 5:
        expected["top_5_accuracy"] = sk.top_k_accuracy_score(labels, scores, k=5, labels=classes)
    return expected


def independent(folder: Path) -> dict[str, float]:
    """The metrics of predictions.csv, by scikit-learn alone."""
    with (folder / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    columns = list(table[0])[6:]
    classes = [name.removeprefix("probability_") for name in columns]
    # As written, the shortest decimals that tell one float32 from all others: read as such.
    scores = np.array([[float(row[name]) for name in columns] for row in table], np.float32)
    predicted = [classes[place] for place in scores.argmax(axis=1)]
    assert predicted == [row["prediction"] for row in table]
    return by_scikit_learn(np.array([classes.index(row["label"]) for row in table]), scores)


def test_the_numbers_are_those_of_the_predictions(repository: Path) -> None:
    folder = repository / ROOT / "evaluate"
    actual = json.loads((folder / "metrics.json").read_text())["fine_tuned"]
    assert actual == pytest.approx(independent(folder), abs=1e-9)
    spread = json.loads((folder / "intervals.json").read_text())["fine_tuned"]
    for name, value in actual.items():
        assert spread[name]["low"] <= value + 1e-6, name
        assert spread[name]["high"] >= value - 1e-6 or name == "calibration_error", name


@pytest.mark.parametrize(("classes", "images"), [(2, 40), (3, 60), (10, 200)])
def test_a_draw_counts_as_its_images_repeated(classes: int, images: int) -> None:
    labels, probabilities = some(classes, images)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(images, size=images) for _ in range(5)]
    counts = np.stack([np.bincount(item, minlength=images) for item in drawn]).astype(float)
    gathered = facts.gather(labels, probabilities)
    actual = gathered.weighted(counts)
    for place, chosen in enumerate(drawn):
        expected = by_scikit_learn(labels[chosen], probabilities[chosen])
        assert {n: v[place] for n, v in actual.items()} == pytest.approx(expected, abs=1e-12)


def test_intervals_hold_what_they_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """About 95 % of the 95 % intervals of samples contain the true value."""
    monkeypatch.setattr(resampling, "DRAWS", 300)
    labels, probabilities = some(3, 20_000)
    whole = facts.gather(labels, probabilities).values()["accuracy"]
    held = 0
    for start in range(0, 20_000, 200):
        part = slice(start, start + 200)
        sample = resampling.resample(facts.gather(labels[part], probabilities[part]), start)
        actual = resampling.intervals(sample)["accuracy"]
        held += actual.low <= whole <= actual.high
    assert 88 <= held <= 100


def test_the_report_works_offline(repository: Path, browser: Any) -> None:
    page = repository / ROOT / "report.html"
    browser.get(f"file://{page}")
    images = browser.find_elements("css selector", "img")
    assert len(images) == 9
    assert all(int(image.get_property("naturalWidth")) > 300 for image in images)
    message = browser.find_element("tag name", "body").text
    actual = json.loads((repository / ROOT / "evaluate" / "metrics.json").read_text())
    assert f"{actual['fine_tuned']['accuracy']:.4f}" in message
    assert f"{actual['head_only']['log_loss']:.4f}" in message
    assert "Fine-tuning compared with the head-only model:" in message
    for heading in ("Metrics", "Calibration", "Grad-CAM", "Data", "Lineage", "Settings"):
        assert heading in [h.text for h in browser.find_elements("tag name", "h2")]
    points = browser.find_elements("css selector", "#map circle")
    assert len(points) == 1000, "more would lie on top of each other"
    wrong = next(p for p in points if "predicted" in p.get_attribute("textContent"))
    remark = browser.find_element("id", "card")
    assert not remark.is_displayed()
    ActionChains(browser).scroll_to_element(wrong).move_to_element(wrong).perform()
    assert remark.is_displayed()
    assert remark.text
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert "http" not in page.read_text().replace("http-equiv", "")


@pytest.mark.slow
def test_slices(clone: Path, run: Run, image_folder: Path) -> None:
    lines = ["path,label,camera"]
    for number, path in enumerate(sorted(image_folder.rglob("*.png"))):
        name = path.relative_to(image_folder).as_posix()
        lines.append(f"{name},{path.parent.name},{'old' if number % 2 else 'new'}")
    (image_folder / "list.csv").write_text("\n".join(lines) + "\n")
    text = (clone / "params.yaml").read_text()
    for before, after in (
        ("use: digits ", "use: csv "),
        ("conf/data/digits.yaml", str(image_folder / "list.csv")),
        ("image_size: 8 ", "image_size: 16 "),
        ("train_per_class: 20", "train_per_class: 6"),
        ("val_per_class: 20", "val_per_class: 2"),
    ):
        assert before in text, before
        text = text.replace(before, after)
    (clone / "params.yaml").write_text(text)
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = clone / ROOT / "evaluate"
    with (folder / "slices.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["value"] for row in table] == ["new", "old"]
    with (folder / "predictions.csv").open(newline="") as file:
        predictions = list(csv.DictReader(file))
    cameras = dict(line.split(",")[::2] for line in lines[1:])
    for row in table:
        mine = [p for p in predictions if cameras[p["path"]] == row["value"]]
        assert int(row["images"]) == len(mine)
        right = np.mean([p["label"] == p["prediction"] for p in mine])
        assert float(row["accuracy"]) == pytest.approx(right, abs=1e-6)
    assert "Results by column" in (clone / ROOT / "report.html").read_text()


@pytest.mark.slow
def test_classes_may_be_called_like_columns(clone: Path, run: Run, image_folder: Path) -> None:
    (image_folder / "bright").rename(image_folder / "path")
    (image_folder / "dark").rename(image_folder / "label")
    for part, name in enumerate(("known", "split", "predicted", "accuracy"), start=2):
        (image_folder / name).mkdir()
        for place, file in enumerate(sorted((image_folder / "path").iterdir())):
            pixels = np.asarray(Image.open(file)) // part + place
            Image.fromarray(pixels).save(image_folder / name / file.name)
    words = ("data.use=folder", f"data.path={image_folder}", "prepare.image_size=16")
    words += ("prepare.train_per_class=6", "prepare.val_per_class=2", "tracking.enabled=false")
    for stage in STAGES:
        done = run(clone, sys.executable, "-m", "pipeline", stage, *words)
        assert done.returncode == 0, done.stderr
    folder = clone / ROOT / "evaluate"
    actual = json.loads((folder / "metrics.json").read_text())["fine_tuned"]
    assert actual == pytest.approx(independent(folder), abs=1e-6)
    with (folder / "predictions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["path"].startswith(f"{row['label']}/")


def test_a_temperature_makes_a_classifier_as_sure_as_it_is_right() -> None:
    labels, probabilities = some(4, 4000)
    logits = np.log(probabilities.astype(np.float64))
    right = calibration.temperature(labels, probabilities)
    for too_sure in (0.5, 3.0):
        values = np.exp(logits * too_sure)
        values /= values.sum(axis=1, keepdims=True)
        actual = calibration.temperature(labels, values.astype(np.float32))
        assert actual == pytest.approx(too_sure * right, rel=1e-3)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("all_right", [False, True])
def test_a_temperature_never_makes_the_loss_it_was_fitted_to_higher(
    sharpness: float, all_right: bool
) -> None:
    labels, probabilities = some(6, 150)
    if all_right:
        labels = probabilities.argmax(axis=1)
    values = probabilities.astype(np.float64) ** sharpness
    values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
    actual = calibration.temperature(labels, values)
    plain = calibration.log_loss(labels, values)
    assert calibration.log_loss(labels, values, actual) <= plain + 1e-6
    if all_right:
        assert 0.05 < actual <= 1, "surer, but not without end"


@pytest.mark.slow
def test_a_calibrated_model_keeps_its_answers(clone: Path, run: Run) -> None:
    calibrated = json.loads((clone / ROOT / "evaluate" / "metrics.json").read_text())
    params = clone / "params.yaml"
    params.write_text(
        params.read_text().replace("batch_norm: train", "calibrate: false\n  batch_norm: train")
    )
    done = run(clone, "dvc", "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "temperature " not in done.stdout
    plain = json.loads((clone / ROOT / "evaluate" / "metrics.json").read_text())
    for model in ("head_only", "fine_tuned"):
        assert calibrated[model]["accuracy"] == plain[model]["accuracy"]
    for name in ("log_loss", "calibration_error"):
        assert calibrated["fine_tuned"][name] < plain["fine_tuned"][name]
    for stage in ("train_head", "finetune"):
        summary = json.loads((clone / ROOT / stage / "summary.json").read_text())
        assert summary["val_score"] <= summary["val_loss"] + 1e-6, "where it was fitted"


@pytest.mark.slow
def test_the_report_names_the_split_that_was_evaluated(clone: Path, run: Run) -> None:
    words = ("evaluate", "evaluate.split=val", "evaluate.label_errors=false")
    done = run(clone, sys.executable, "-m", "pipeline", *words)
    assert done.returncode == 0, done.stderr
    done = run(clone, sys.executable, "-m", "pipeline", "report")
    assert re.search(r"\d+ of \d+ val images are right", done.stdout), done.stdout + done.stderr


def test_a_report_without_outputs_says_what_to_do(project: Path, run: Run) -> None:
    done = run(project, sys.executable, "-m", "pipeline", "report", "tracking.enabled=false")
    assert done.returncode == 1
    assert (
        "the report needs the outputs of every stage, and prepare has none: run dvc repro"
        in done.stderr
    )


def test_grad_cam_finds_what_speaks_for_a_class() -> None:
    import keras

    from pipeline.networks.gradcam import GradCam, overlay

    entry = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(2, 4, strides=4, name="spots")(entry)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(2)(x)
    model = keras.Model(entry, keras.layers.Softmax()(x))
    kernel = np.zeros((4, 4, 3, 2), np.float32)
    kernel[..., 0, 0] = kernel[..., 2, 1] = 1  # red speaks for class 0, blue for class 1
    model.layers[1].set_weights([kernel, np.zeros(2, np.float32)])
    model.layers[3].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:8, 8:12, 0] = 255
    image[24:28, 20:24, 2] = 255
    cam = GradCam(model)
    assert cam.layer == "spots"
    red, blue = cam.maps(np.stack([image, image]), np.array([0, 1]))
    assert np.unravel_index(red.argmax(), red.shape) == (1, 2)
    assert np.unravel_index(blue.argmax(), blue.shape) == (6, 5)
    assert red.max() == blue.max() == 1
    remark = overlay(image, red)
    changed = np.argwhere((remark != image).any(axis=-1))
    assert 0 < len(changed) < 200, "only what is warm is coloured"


def test_grad_cam_of_a_flattened_map_keeps_places_apart() -> None:
    """Averaged gradients would cancel: the class likes one place as much as it dislikes another."""
    import keras

    from pipeline.networks.gradcam import GradCam

    entry = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(1, 4, strides=4)(entry)
    x = keras.layers.Dense(2)(keras.layers.Flatten()(x))
    model = keras.Model(entry, keras.layers.Softmax()(x))
    model.layers[1].set_weights([np.ones((4, 4, 3, 1), np.float32), np.zeros(1, np.float32)])
    places = np.array([[1, -1], [-1, 1], [0, 0], [0, 0]], np.float32)
    model.layers[3].set_weights([places, np.zeros(2, np.float32)])
    white = np.full((2, 8, 8, 3), 255, np.uint8)
    first, second = GradCam(model).maps(white, np.array([0, 1]))
    assert first.tolist() == [[1, 0], [0, 0]]
    assert second.tolist() == [[0, 1], [0, 0]]


@pytest.mark.slow
def test_hymenoptera_with_real_weights(
    clone: Path, run: Run, shared: Path, browser: Any, tmp_path: Path
) -> None:
    (clone.parent / "shared").symlink_to(shared)
    preset = (clone / "conf/experiment/hymenoptera_mobilenet_v2.yaml").read_text()
    by_name = preset.replace("weights: ${.path}", "weights: imagenet")
    assert by_name != preset, "by path: test_near_duplicates.py"
    (clone / "params.yaml").write_text(by_name)
    home = {"KERAS_HOME": str(shared / "weights" / "keras_home")}
    done = run(clone, "dvc", "repro", env=home, forked=False)  # Keras reads it when imported
    assert done.returncode == 0, done.stdout + done.stderr
    card = json.loads((clone / ROOT / "extract_features" / "backbone.json").read_text())
    assert len(card["weights_sha256"]) == 64
    folder = clone / ROOT / "evaluate"
    metrics = json.loads((folder / "metrics.json").read_text())
    actual = metrics["fine_tuned"]
    assert metrics["head_only"]["accuracy"] > 0.85
    assert actual["accuracy"] > 0.85
    recomputed = independent(folder)
    assert actual == pytest.approx(recomputed, abs=1e-9)
    browser.get(f"file://{clone / ROOT / 'report.html'}")
    message = browser.find_element("tag name", "body").text
    for name, value in recomputed.items():
        assert f"{value:.4f}" in message, name
    browser.save_screenshot(str(tmp_path / "report.png"))
    assert Image.open(tmp_path / "report.png").width > 1000
