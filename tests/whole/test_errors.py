"""Typical mistakes end in one clear line, a non-zero exit code, and nothing lost."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run

from pipeline.storage.digests import dvc_md5


def stage(run: Run, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", *words, "tracking.enabled=false")


def fails_in_one_line(done: subprocess.CompletedProcess[str], *message: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in message:
        assert part in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prepare", "prepare.image_siz=3"), "did you mean prepare.image_size?"),
        (("prepare", "prepare.image_size=big"), "must be a number or auto, got 'big'"),
        (("prepare", "data.use=digit"), "did you mean digits?"),
        (("prepare", "prepare.train_per_class=???"), "has no value ('???')"),
        (("prepare", "data.use=folder", "data.path=nowhere"), "does not exist: set data.path"),
        (("prepare", "prepare.image_size=0"), "prepare.image_size must be at least 1, got 0"),
        (("prepare", "data.use=tfds", "data.name=beans"), "pip install tensorflow-datasets"),
        (("extract_features", "extract_features.batch_size=0"), "at least 1, got 0"),
        (("extract_features", "backbone.weights=nowhere.h5"), "nowhere.h5: no such file"),
        (("extract_features", "threads=0"), "threads must be at least 1, got 0"),
        (("train_head", "head.units=[0]"), "head.units must be at least 1"),
        (
            ("finetune", "finetune.cut=5000"),
            "finetune.cut=5000 is not a layer of glyph_cnn: it has the layers 0 to",
        ),
        (("finetune", "finetune.batch_norm=maybe"), "must be one of frozen, train, got 'maybe'"),
        (
            ("evaluate", "evaluate.split=dev"),
            "evaluate.split must be one of train, val, test, got 'dev'",
        ),
        (("rollback", "--port"), "arguments: --port: see python -m pipeline rollback --help"),
        (("retrain",), "unknown command 'retrain'"),
    ],
)
def test_bad_input(repository: Path, run: Run, words: tuple[str, ...], message: str) -> None:
    before = {path.name: dvc_md5(path) for path in (repository / "outputs").glob("[a-z]*")}
    fails_in_one_line(stage(run, repository, *words), message)
    after = {path.name: dvc_md5(path) for path in (repository / "outputs").glob("[a-z]*")}
    assert before == after
    assert not list((repository / "outputs").glob("*.partial"))


def test_under_dvc_the_previous_outputs_come_back(clone: Path, run: Run) -> None:
    before = dvc_md5(clone / "outputs" / "finetune")
    path = clone / "params.yaml"
    path.write_text(path.read_text().replace("cut: block2_conv1", "cut: nowhere"))
    done = run(clone, "dvc", "repro")
    assert done.returncode != 0
    assert "error: finetune.cut=nowhere is not a layer" in done.stderr
    path.write_text(path.read_text().replace("cut: nowhere", "cut: block2_conv1"))
    assert run(clone, "dvc", "checkout").returncode == 0
    assert dvc_md5(clone / "outputs" / "finetune") == before
    assert run(clone, "dvc", "repro").returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; requires permission to mount."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(clone: Path, run: Run, small_disk: Path) -> None:
    shutil.copytree(clone / "outputs" / "prepare", small_disk / "prepare")
    shutil.rmtree(clone / "outputs")
    (clone / "outputs").symlink_to(small_disk)
    before = dvc_md5(small_disk / "prepare")
    fails_in_one_line(
        stage(run, clone, "prepare", "prepare.image_size=64"), "no space left on the disk"
    )
    fails_in_one_line(stage(run, clone, "extract_features"), "no space left on the disk")
    assert dvc_md5(small_disk / "prepare") == before
    assert [path.name for path in small_disk.iterdir() if not path.name.startswith(".")] == [
        "prepare"
    ]
    assert not list(small_disk.glob(".*.partial"))


def test_a_read_only_disk(clone: Path, run: Run, small_disk: Path) -> None:
    shutil.copytree(clone / "outputs" / "prepare", small_disk / "prepare")
    shutil.rmtree(clone / "outputs")
    (clone / "outputs").symlink_to(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    fails_in_one_line(stage(run, clone, "prepare"), "the file system is read-only")


def test_outputs_is_a_file(clone: Path, run: Run) -> None:
    shutil.rmtree(clone / "outputs")
    (clone / "outputs").write_text("")
    fails_in_one_line(stage(run, clone, "prepare"), "a file is where a folder should be")


def test_a_stage_before_its_turn(project: Path, run: Run) -> None:
    fails_in_one_line(stage(run, project, "extract_features"), "run the prepare stage first")


def test_help_is_there(repository: Path, run: Run) -> None:
    message = run(repository, sys.executable, "-m", "pipeline")
    assert message.returncode == 0
    assert "finetune" in message.stdout
    message = run(repository, sys.executable, "-m", "pipeline", "finetune", "--help")
    assert message.returncode == 0
    assert "convnext_tiny" in message.stdout
    assert "finetune.label_smoothing=0.1" in message.stdout
    message = run(repository, sys.executable, "-m", "pipeline", "finetune", "--cfg", "job")
    assert "batch_norm: train" in message.stdout
    message = run(repository, "make", "help")
    assert all(target in message.stdout for target in ("repro", "test", "lint", "ui"))
