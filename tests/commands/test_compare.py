"""compare: differing settings, seeds grouped, paired comparison on the same images."""

import re
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from conftest import Run


def compare(run: Run, folder: Path, *words: str) -> CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "pipeline", "compare", *words)


def stages(run: Run, folder: Path, *words: str, names: tuple[str, ...]) -> None:
    for name in names:
        done = run(folder, sys.executable, "-m", "pipeline", name, *words)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_experiments_side_by_side(clone: Path, run: Run) -> None:
    after = ("finetune", "evaluate")
    few = ("finetune.epochs=2",)
    stages(run, clone, "finetune.learning_rate=1e-4", *few, names=after)
    stages(
        run,
        clone,
        "finetune.learning_rate=1e-4",
        "seed=1",
        *few,
        names=("prepare", "extract_features", "train_head", *after),
    )
    done = compare(run, clone)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split()[:4] == ["run", "accuracy", "log_loss", "images"]
    assert "learning_rate" in header
    assert "epochs" in header
    assert "train_head" not in header, "settings that are the same are left out"
    (seeds,) = [line for line in lines if "(2 seeds)" in line]
    assert re.search(r"0\.\d{4} ± 0\.\d{4}", seeds)
    (single,) = [line for line in lines if re.search(r"0\.\d{4} \(0\.\d{3}-0\.\d{3}\)", line)]
    assert "0.001" in single
    assert any("compared with" in line for line in lines)


@pytest.mark.slow
def test_the_same_images_are_compared_in_pairs(clone: Path, run: Run) -> None:
    stages(run, clone, "finetune.cut=none", names=("finetune", "evaluate"))
    done = compare(run, clone)
    assert done.returncode == 0, done.stderr
    assert "digits glyph_cnn (" in done.stdout
    assert re.search(r"\) compared with cut=none \(digits\) \(", done.stdout)
    assert "no measurable difference in accuracy" in done.stdout
    assert "log loss" in done.stdout


def test_names_that_mean_nothing(repository: Path, run: Run) -> None:
    done = compare(run, repository, "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no evaluated experiment nothing: there are ")
    assert done.stderr.count("\n") == 1


def test_nothing_to_compare(project: Path, run: Run) -> None:
    done = compare(run, project)
    assert done.returncode == 1
    assert (
        done.stderr == "error: there is no evaluated experiment to compare: run dvc repro first\n"
    )
