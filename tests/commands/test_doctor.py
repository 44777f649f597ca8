"""doctor: one line per check, with a remedy for each problem."""

import shutil
import socket
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import Run


def doctor(run: Run, folder: Path, *words: str, **env: str) -> CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", "doctor", *words, env=env)


def line_of(done: CompletedProcess[str], name: str) -> str:
    (actual,) = [line for line in done.stdout.splitlines() if line[9:].startswith(f"{name} ")]
    return actual


def test_a_healthy_project(repository: Path, run: Run) -> None:
    done = doctor(run, repository)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    for name in ("tensorflow", "params.yaml", "images", "weights", "disk", "git", "tracking"):
        assert line_of(done, name).startswith("ok")
    assert line_of(done, "dvc remote").startswith("warning")


RESNET = ["backbone.use=resnet50", "finetune.cut=auto", "prepare.image_size=64"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name", "level", "message"),
    [
        (["data.use=folder", "data.path=nowhere"], "images", "error", "data.path=nowhere"),
        (["backbone.use=keras_file", "backbone.path=no.keras"], "weights", "error", "no.keras"),
        ([*RESNET, "backbone.weights=imagenet"], "weights", "warning", "the first run downloads"),
        (["backbone.use=resnet50", "backbone.weights=x.h5"], "weights", "error", "no file x.h5"),
        (["tracking.uri=postgresql://a:secret@127.0.0.1:9/x"], "tracking", "error", "127.0.0.1"),
        (["tracking.enabled=false"], "tracking", "warning", "runs are not logged"),
        (["finetune.cut=nowhere"], "network", "error", "finetune.cut=nowhere is not a layer"),
        (["prepare.image_size=3"], "network", "error", "prepare.image_size"),
        (["finetune.epochs=-3"], "params.yaml", "error", "must be at least 1, got -3"),
        (["finetune.epochs=many"], "params.yaml", "error", "must be a number or auto, got 'many'"),
    ],
)
def test_each_thing_broken(
    repository: Path, run: Run, words: list[str], name: str, level: str, message: str
) -> None:
    done = doctor(run, repository, *words, KERAS_HOME=str(repository / "no_keras"))
    actual = line_of(done, name)
    assert actual.startswith(level)
    assert message in actual
    assert done.returncode == (level == "error")
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_cuts_of_images_whose_size_is_still_to_be_derived(repository: Path, run: Run) -> None:
    words = ["backbone.use=resnet50", "backbone.path=conf/backbone/resnet50.yaml"]
    done = run(
        repository, sys.executable, "-m", "pipeline", "cuts", *words, "prepare.image_size=auto"
    )
    assert done.returncode == 0, done.stderr
    assert "at 224 px" in done.stdout


def test_no_dvc_no_git_and_a_port_that_is_taken(project: Path, run: Run) -> None:
    shutil.rmtree(project / ".dvc")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = doctor(run, project, f"tracking.port={port}", "tracking.enabled=false")
    assert done.returncode == 1
    assert line_of(done, "dvc").startswith("error    dvc            no .dvc here: dvc init")
    assert line_of(done, "git").startswith("warning")
    assert line_of(done, "tracking.port").startswith("warning")


def test_dvc_repro_looks_first(clone: Path, run: Run) -> None:
    text = (clone / "params.yaml").read_text()
    text = text.replace("  use: glyph_cnn", "  use: resnet50\n  weights: gone.h5")
    (clone / "params.yaml").write_text(text.replace("glyph_cnn.yaml", "resnet50.yaml"))
    (clone / "params.yaml").write_text(
        (clone / "params.yaml").read_text().replace("image_size: 8 ", "image_size: 32 ")
    )
    done = run(clone, "dvc", "repro")
    assert done.returncode != 0
    assert "error: weights: no file gone.h5: set backbone.weights to the file" in done.stderr


def test_what_keeps_dvc_from_starting(project: Path, run: Run) -> None:
    done = doctor(run, project, "tracking.enabled=false")
    assert done.returncode == 1
    assert line_of(done, "dvc repro").startswith("error")
    assert "no_scm" in line_of(done, "dvc repro") or "git" in line_of(done, "dvc repro").lower()


def test_a_folder_that_prepare_would_refuse(repository: Path, run: Run, tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "more"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").write_bytes(b"x")
    done = doctor(run, repository, "data.use=folder", f"data.path={tmp_path}")
    assert line_of(done, "layout").startswith("error")
    assert "more" in line_of(done, "layout")
