"""A certificate names whatever was changed after it was made: data, settings, code and results."""

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PROJECT, Run, copied, copy_project, made_once, run_in
from PIL import Image

from pipeline.errors import InputError
from pipeline.release import certificate

SETTINGS = """seed: 0
threads: 2
data: {use: csv, path: images.csv}
backbone: {use: glyph_cnn, path: conf/backbone/glyph_cnn.yaml}
head: {use: logistic}
augment: {use: none}
forward: {engine: keras}
prepare: {image_size: 32, exclude: conf/exclude.csv}
extract_features: {batch_size: 32}
train_head: {}
finetune: {cut: block2_conv1, epochs: 2}
evaluate: {split: test}
serve: {unknown: 0.05, coverage: 0.9}
"""
COLUMNS = ("path", "label", "split", "patient")


def drawn(rng: np.random.Generator, red: bool) -> Image.Image:
    """An image with detail of its own, red or blue."""
    tiles = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    tiles[..., 0 if red else 2] |= 128
    tiles[..., 2 if red else 0] //= 2
    return Image.fromarray(tiles).resize((48, 48), Image.Resampling.BICUBIC)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def certified(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project with a certificate. Read only."""

    def make(folder: Path) -> None:
        copy_project(folder)
        shutil.copy(empty_store, folder / "mlflow.db")
        (folder / "dvc.lock").unlink()
        (folder / "params.yaml").write_text(SETTINGS)
        (folder / "images").mkdir()
        rng, rows = np.random.default_rng(0), []
        for number in range(72):
            patient = number // 4
            split = ("train", "train", "train", "val", "test", "test")[patient % 6]
            name = f"images/{number}.png"
            drawn(rng, red=bool(number % 2)).save(folder / name)
            label = ("blue", "red")[number % 2]
            rows.append(dict(zip(COLUMNS, (name, label, split, f"p{patient}"), strict=True)))
        write_rows(folder, rows)
        for command in (
            *(["git", "init", "-q"], ["git", "config", "user.email", "a@example.org"]),
            *(["git", "config", "user.name", "a"], ["git", "add", "-A"]),
            ["git", "commit", "-qm", "start"],
            ["dvc", "repro"],
            [sys.executable, "-m", "pipeline", "certify"],
        ):
            done = run_in(folder, *command)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "warning" not in done.stdout

    finished = made_once(tmp_path_factory, "certified", make)
    return copied(finished, tmp_path_factory.mktemp("certified") / "project")


@pytest.fixture
def mine(certified: Path, tmp_path: Path) -> Path:
    """A copy whose certificate lies beside its outputs."""
    folder = copied(certified, tmp_path / "mine")
    shutil.copy(folder / "outputs" / "certificate.json", folder / "certificate.json")
    return folder


def verify(run: Run, folder: Path, *options: str) -> tuple[int, str]:
    done = run(folder, sys.executable, "-m", "pipeline", "verify", "certificate.json", *options)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def emptied(folder: Path) -> Path:
    """What a clone with the same data has."""
    for name in ("outputs", ".work", "mlflow.db", "mlruns", ".dvc/cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


@pytest.mark.slow
def test_a_clone_with_the_same_data_has_the_same_bytes(run: Run, mine: Path) -> None:
    page = (mine / "outputs" / "certificate.html").read_text()
    assert "python -m pipeline verify certificate.json" in page
    code, text = verify(run, emptied(mine))
    assert code == 0, text
    assert "DIFFERS" not in text
    assert text.rstrip().endswith("verified: certificate.json")
    assert "largest difference of a probability 0\n" in text


@pytest.mark.slow
def test_every_change_of_the_data_is_named(run: Run, mine: Path) -> None:
    rows = rows_of(mine)
    test = [row for row in rows if row["split"] == "test"]
    train = [row for row in rows if row["split"] == "train"]
    changed, moved, resplit = train[0], train[1], train[5]
    drawn(np.random.default_rng(9), red=True).save(mine / changed["path"])
    moved["label"] = "blue" if moved["label"] == "red" else "red"
    resplit["split"] = "test"
    shutil.copy(mine / test[0]["path"], mine / "images/copy.png")
    rows.append({**test[0], "path": "images/copy.png", "split": "train", "patient": "p90"})
    near = Image.open(mine / test[1]["path"]).resize((60, 60), Image.Resampling.LANCZOS)
    near.save(mine / "images/near.png")
    rows.append({**test[1], "path": "images/near.png", "split": "train", "patient": "p91"})
    write_rows(mine, rows)
    code, text = verify(run, emptied(mine))
    assert code == 1
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "DIFFERS" in lines["images"]
    for expected in (
        changed["path"],
        f"{moved['path']}: train",
        f"{resplit['path']}: train {resplit['label']}",
        "images/copy.png: absent -> quarantined",
        "images/near.png: absent -> train",
    ):
        assert expected in lines["images"], expected
    for expected in (
        "copies of images in another split, removed: 0 -> 1",
        "near copies of images in train or val: 0 -> 1",
        "same patient as images in train or val: 0 -> ",
    ):
        assert expected in lines["splits"], expected
    assert "DIFFERS" in lines["outputs"]
    assert "not verified: images, splits, outputs" in text


def edited(folder: Path, change: Callable[[dict[str, Any]], None], *, resigned: bool) -> None:
    path = folder / "certificate.json"
    content = json.loads(path.read_text())
    change(content)
    if resigned:
        content.pop("sha256")
        text = json.dumps(content, sort_keys=True)
        content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


def metric(content: dict[str, Any]) -> None:
    content["metrics"]["fine_tuned accuracy value"] = 1.5


def version(content: dict[str, Any]) -> None:
    content["environment"]["numpy"] = "1.0.0"


@pytest.mark.slow
def test_every_other_change_is_named(run: Run, mine: Path) -> None:
    original = (mine / "certificate.json").read_bytes()
    assert verify(run, mine, "--no-rerun")[0] == 0
    edited(mine, metric, resigned=False)
    code, text = verify(run, mine, "--no-rerun")
    assert (code, "certificate  DIFFERS edited" in text) == (1, True)
    (mine / "certificate.json").write_bytes(original)
    for change, name, value in (
        (metric, "metrics", "fine_tuned accuracy value: 1.5 -> "),
        (version, "environment", "numpy: 1.0.0 -> "),
    ):
        edited(mine, change, resigned=True)
        code, text = verify(run, mine, "--no-rerun")
        assert (code, f"not verified: {name}" in text, value in text) == (1, True, True), text
        (mine / "certificate.json").write_bytes(original)
    (mine / "params.yaml").write_text(SETTINGS.replace("seed: 0", "seed: 1"))
    code, text = verify(run, mine, "--no-rerun")
    assert (code, "1 differ: seed: 0 -> 1" in text) == (1, True), text
    (mine / "params.yaml").write_text(SETTINGS)
    with (mine / "pipeline" / "errors.py").open("a") as file:
        file.write("# changed\n")
    done = run(
        mine,
        *(sys.executable, "-m", "pipeline", "verify", "certificate.json", "--no-rerun"),
        env={"PYTHONPATH": str(mine)},
        forked=False,
    )
    assert "not verified: code" in done.stdout
    shutil.copy(PROJECT / "pipeline" / "errors.py", mine / "pipeline" / "errors.py")
    model = mine / "outputs" / "finetune" / "model.keras"
    model.unlink()
    shutil.copy(mine / "outputs" / "train_head" / "head.keras", model)
    code, text = verify(run, mine, "--no-rerun")
    assert (code, "finetune/model.keras: " in text) == (1, True)
    done = run(mine, sys.executable, "-m", "pipeline", "certify")
    assert done.returncode == 1
    assert done.stderr == (
        "error: only outputs recorded in dvc.lock can be certified, but outputs/finetune differs: "
        "run dvc repro, or dvc checkout to restore them\n"
    )


@pytest.mark.slow
def test_missing_and_damaged_outputs_are_one_line(run: Run, mine: Path) -> None:
    command = (sys.executable, "-m", "pipeline", "verify", "certificate.json")
    for change in (
        lambda: (mine / "outputs/evaluate/predictions.parquet").unlink(),
        lambda: (mine / "outputs/evaluate/predictions.parquet").write_bytes(b"no table"),
        lambda: (mine / "outputs/prepare/summary.json").write_text("{"),
        lambda: shutil.rmtree(mine / "outputs"),
    ):
        change()
        done = run(mine, *command, "--no-rerun")
        assert done.returncode == 1
        assert done.stderr.startswith("error: the outputs are incomplete or damaged ("), done.stderr
        assert done.stderr.endswith("run dvc repro, or dvc checkout to restore them\n")
        assert done.stderr.count("\n") == 1
    (mine / "images.csv").unlink()
    done = run(mine, *command)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "error: dvc repro failed: fix the error above, then run verify again\n"
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"code": 1}', "\x00"])
def test_other_files_are_no_certificates(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=r"c\.json is not a certificate .*: fetch it again"):
        certificate.read(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"no certificate at .*none\.json \(No such file"):
        certificate.read(tmp_path / "none.json")


def test_an_image_that_was_moved_is_named_by_its_present_path() -> None:
    before = {"ants/1.jpg": "train ants aa", "ants/2.jpg": "test ants bb"}
    line = certificate.section(
        "images", before, {"bees/1.jpg": "train bees aa", "ants/2.jpg": "test ants bb"}
    )
    assert line.text == "1 differ: bees/1.jpg: train ants aa -> train bees aa"
    line = certificate.section("images", before, {"ants/2.jpg": "test ants bb"})
    assert line.text == "1 differ: ants/1.jpg: train ants aa -> absent"


def made(processor: str, labels: list[str], chance: float) -> dict[str, Any]:
    predictions = {f"{n}.png": f"{chance} {label}" for n, label in enumerate(labels)}
    sections: dict[str, Any] = {name: {} for name in certificate.SECTIONS}
    return {
        **sections,
        "processor": processor,
        "predictions": predictions,
        "metrics": {"a": chance},
    }


def test_a_damaged_prediction_is_refused() -> None:
    mine, damaged = made("one", ["ant"], 0.9), made("one", ["ant"], 0.9)
    damaged["predictions"]["0.png"] = "ant"
    with pytest.raises(InputError, match=r"a probability and a label, got 'ant': fetch it again"):
        list(certificate.compare(damaged, mine))


def test_on_another_processor_the_labels_decide() -> None:
    mine, same = made("one", ["ant", "bee"], 0.9), made("two", ["ant", "bee"], 0.8)
    lines = {line.name: line for line in certificate.compare(mine, same)}
    assert all(line.same for line in lines.values())
    assert lines["predictions"].text == (
        "2 of 2 labels are the same, largest difference of a probability 0.1"
    )
    assert "one -> two" in lines["processor"].text
    numbers = made("one", ["1225870.5"], 1225870.5), made("two", ["1225871.0"], 1225871)
    assert {line.name: line for line in certificate.compare(*numbers)}["predictions"].same
    apart = made("one", ["100001", "2"], 0.9), made("two", ["100002", "2"], 0.9)  # classes
    assert not {line.name: line for line in certificate.compare(*apart)}["predictions"].same
    other = made("two", ["ant", "ant"], 0.9)
    lines = {line.name: line for line in certificate.compare(mine, other)}
    assert not lines["predictions"].same
    assert "1 of 2 labels" in lines["predictions"].text
    assert "1.png: bee -> ant" in lines["predictions"].text
    here = {line.name: line for line in certificate.compare(mine, made("one", ["ant", "bee"], 0.8))}
    assert not here["metrics"].same, "on the same processor, every bit counts"
