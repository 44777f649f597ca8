"""The real DVC: a stage runs when, and only when, something it reads has changed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run, copied

from pipeline.storage.digests import digest, dvc_md5
from pipeline.storage.outputs import ROOT, STAGES

PROJECT = Path(__file__).parents[2]


def executed(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


def repro(run: Run, folder: Path, *options: str) -> list[str]:
    done = run(folder, "dvc", "repro", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return executed(done.stdout)


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_second_repro_runs_nothing(clone: Path, run: Run) -> None:
    assert repro(run, clone) == []


@pytest.mark.slow
def test_a_forced_repro_leaves_the_lock_file_as_it_was(clone: Path, run: Run) -> None:
    before = (clone / "dvc.lock").read_bytes()
    assert repro(run, clone, "-f") == [*STAGES, "report"]
    assert (clone / "dvc.lock").read_bytes() == before


@pytest.mark.slow
def test_a_change_of_finetune_runs_finetune_and_evaluate(clone: Path, run: Run) -> None:
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: block3_conv2")
    assert repro(run, clone) == ["finetune", "evaluate", "report"]
    edit(clone / "params.yaml", "cut: block3_conv2", "cut: block2_conv1")
    assert repro(run, clone) == [], "DVC's run cache has the first result"


def test_the_lock_file_has_our_digests(repository: Path) -> None:
    lock = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]
    for stage in STAGES:
        (out,) = lock[stage]["outs"]
        assert dvc_md5(repository / out["path"]) == out["md5"], stage
        assert digest(repository / out["path"]) == out["md5"], stage


@pytest.mark.slow
def test_metrics_and_plots_are_understood(clone: Path, run: Run) -> None:
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: none")
    assert repro(run, clone) == ["finetune", "evaluate", "report"]
    done = run(clone, "git", "add", "-A")
    changed = json.loads(run(clone, "dvc", "metrics", "show", "--json").stdout)
    (values,) = changed[""]["data"].values()
    assert set(values["data"]) == {"head_only", "fine_tuned"}
    done = run(clone, "dvc", "plots", "show")
    assert done.returncode == 0, done.stderr
    page = (clone / "dvc_plots" / "index.html").read_text()
    assert "learning curves" in page
    assert (clone / "dvc_plots" / "static").is_dir()


def test_the_plots_page_shows_everything_without_a_network(
    clone: Path, run: Run, browser: Any
) -> None:
    assert run(clone, "dvc", "plots", "show").returncode == 0
    browser.get(f"file://{clone / 'dvc_plots' / 'index.html'}")
    answer = browser.execute_script(
        "return [...document.images].filter(one => one.naturalWidth > 100).map(one => one.src)"
    )
    plots = yaml.safe_load((clone / "dvc.yaml").read_text())["plots"]
    expected = {path.name for path in (clone / "outputs" / "evaluate" / "plots").iterdir()}
    assert len(expected) == 11
    assert {name.rpartition("plots_")[2] for name in answer} >= expected
    drawn = browser.execute_script(
        """return [...document.querySelectorAll(".vega-embed svg.marks")].map(
            one => ({title: one.querySelector(".role-title-text").textContent,
                     marks: one.querySelectorAll(".mark-line path, .mark-rect path").length}))"""
    )
    assert [item["title"] for item in drawn][:2] == ["learning curves", "accuracy"]
    assert [item["marks"] > 1 for item in drawn] == [True] * (len(plots) - 1)


@pytest.mark.slow
def test_diffs_between_two_commits(clone: Path, run: Run) -> None:
    assert run(clone, "git", "add", "-A").returncode == 0
    run(clone, "git", "commit", "-qm", "one")
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: none")
    repro(run, clone)
    message = run(clone, "dvc", "metrics", "diff", "--json")
    actual = json.loads(message.stdout)["outputs/evaluate/metrics.json"]
    assert "fine_tuned.accuracy" in actual
    done = run(clone, "dvc", "plots", "diff")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_experiments_and_queues_are_separate_parents(clone: Path, run: Run) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{clone / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "pipeline"]

    def parents() -> dict[str, dict[str, str]]:
        runs = client.search_runs([experiment.experiment_id], "tags.`pipeline.state` != ''")
        return {run.info.run_name: run.data.params for run in runs}

    before = parents()
    done = run(clone, "dvc", "exp", "run", "-n", "another-head", "-S", "head.use=mlp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert executed(done.stdout) == ["train_head", "finetune", "evaluate", "report"]
    choice = "train_head.learning_rate=choice(1e-3,1e-2)"
    done = run(clone, "dvc", "exp", "run", "--queue", "-S", choice, "-S", "finetune.cut=none")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(clone, "dvc", "queue", "start", "-j", "2")
    assert done.returncode == 0, done.stderr
    answer = ""
    for _ in range(120):
        answer = run(clone, "dvc", "queue", "status").stdout
        if answer.count("Success") + answer.count("Failed") >= 2:
            break
        subprocess.run(["sleep", "2"], check=True)
    assert answer.count("Success") == 2, answer
    after = parents()
    new = {name: params for name, params in after.items() if name not in before}
    assert len(new) == 3
    assert new["another-head"]["head.use"] == "mlp"
    rates = sorted(
        float(p["train_head.learning_rate"]) for n, p in new.items() if p["finetune.cut"] == "none"
    )
    assert rates == [0.001, 0.01]
    table = run(clone, "dvc", "exp", "show", "--csv").stdout
    assert "another-head" in table
    assert "fine_tuned.accuracy" in table
    assert not list((clone / "outputs").glob(".*.partial"))


def test_cron_finds_the_projects_python(clone: Path) -> None:
    """In a nearly empty environment, such as cron's, with the .venv of `make repro`."""
    (clone / ".venv").symlink_to(sys.prefix)
    command = [clone / ".venv" / "bin" / "dvc", "repro", "--single-item", "--force", "prepare"]
    done = subprocess.run(command, cwd=clone, env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clone / "outputs" / "prepare" / "manifest.csv").exists()


@pytest.mark.slow
def test_outputs_travel_by_a_remote(repository: Path, run: Run, tmp_path: Path) -> None:
    """Outputs made on one machine are pulled on another, here through a shared folder."""
    made, other = copied(repository, tmp_path / "made"), tmp_path / "other"
    shared = str(tmp_path / "remote")
    assert run(made, "dvc", "remote", "add", "-d", "shared", shared).returncode == 0
    assert run(made, "dvc", "push").returncode == 0
    run(tmp_path, "cp", "-r", str(made), str(other))
    for gone in ("outputs", ".work", ".dvc/cache", ".dvc/tmp"):
        run(other, "rm", "-rf", gone)
    pulled = run(other, "dvc", "pull")
    assert pulled.returncode == 0, pulled.stderr
    for stage in STAGES:
        assert digest(other / ROOT / stage) == digest(made / ROOT / stage)
    assert "up to date" in run(other, "dvc", "repro").stdout
