"""The real DVC: a stage runs when, and only when, something it reads has changed."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Run

from pipeline.stages import STAGES
from pipeline.storage.digests import digest, dvc_md5

PROJECT = Path(__file__).parents[1]


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


def test_a_forced_repro_leaves_the_lock_file_as_it_was(clone: Path, run: Run) -> None:
    before = (clone / "dvc.lock").read_bytes()
    assert repro(run, clone, "-f") == list(STAGES)
    assert (clone / "dvc.lock").read_bytes() == before


def test_a_change_of_finetune_runs_finetune_and_evaluate(clone: Path, run: Run) -> None:
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: block3_conv2")
    assert repro(run, clone) == ["finetune", "evaluate"]
    edit(clone / "params.yaml", "cut: block3_conv2", "cut: block2_conv1")
    assert repro(run, clone) == [], "DVC's run cache has the first result"


def test_the_lock_file_has_our_digests(repository: Path) -> None:
    lock = yaml.safe_load((repository / "dvc.lock").read_text())["stages"]
    for stage in STAGES:
        (out,) = lock[stage]["outs"]
        assert dvc_md5(repository / out["path"]) == out["md5"], stage
        assert digest(repository / out["path"]) == out["md5"], stage


def test_metrics_and_plots_are_understood(clone: Path, run: Run) -> None:
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: none")
    assert repro(run, clone) == ["finetune", "evaluate"]
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
    shown = browser.execute_script(
        "return [...document.images].filter(one => one.naturalWidth > 100).map(one => one.src)"
    )
    plots = yaml.safe_load((clone / "dvc.yaml").read_text())["plots"]
    expected = {Path(name).name for name in plots if isinstance(name, str)}
    assert len(expected) == 7
    assert {name.rpartition("plots_")[2] for name in shown} >= expected
    drawn = browser.execute_script(
        """return [...document.querySelectorAll(".vega-embed svg.marks")].map(
            one => ({title: one.querySelector(".role-title-text").textContent,
                     marks: one.querySelectorAll(".mark-line path, .mark-rect path").length}))"""
    )
    assert [one["title"] for one in drawn][:2] == ["learning curves", "accuracy"]
    assert [one["marks"] > 1 for one in drawn] == [True] * (len(plots) - len(expected))


def test_diffs_between_two_commits(clone: Path, run: Run) -> None:
    assert run(clone, "git", "add", "-A").returncode == 0
    run(clone, "git", "commit", "-qm", "one")
    edit(clone / "params.yaml", "cut: block2_conv1", "cut: none")
    repro(run, clone)
    told = run(clone, "dvc", "metrics", "diff", "--json")
    found = json.loads(told.stdout)["outputs/evaluate/metrics.json"]
    assert "fine_tuned.accuracy" in found
    done = run(clone, "dvc", "plots", "diff")
    assert done.returncode == 0, done.stderr


def closure(stage: str) -> set[str]:
    """Files of the package that a stage imports, directly or not."""
    found: set[str] = set()
    open_files = [f"pipeline/stages/{stage}.py"]
    while open_files:
        name = open_files.pop()
        if name in found:
            continue
        found.add(name)
        for module in imported(PROJECT / name):
            path = module.replace(".", "/")
            for file in (f"{path}.py", f"{path}/__init__.py"):
                if (PROJECT / file).exists():
                    open_files.append(file)
    # The package's own docstring, and the list of stages, change no result.
    return found - {"pipeline/__init__.py", "pipeline/stages/__init__.py"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if name.startswith("pipeline")}


def sections(stage: str) -> set[str]:
    """What the runner hands a stage: `c.seed`, `c.extract_features.batch_size`, ..."""
    tree = ast.parse((PROJECT / "pipeline" / "__main__.py").read_text())
    call = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "_call")
    match = next(n for n in ast.walk(call) if isinstance(n, ast.Match))
    case = next(c for c in match.cases if ast.literal_eval(c.pattern.value) == stage)
    chains = {ast.unparse(n) for n in ast.walk(case) if isinstance(n, ast.Attribute)}
    own = {chain.removeprefix("c.") for chain in chains if chain.startswith("c.")}
    own.discard("activations")  # where results are kept, not what they are
    return {one for one in own if not any(other.startswith(f"{one}.") for other in own)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_what_it_imports_and_reads(stage: str) -> None:
    listed = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]
    deps = set(listed["deps"])
    code = {dep for dep in deps if dep.startswith("pipeline/")}
    folders = {dep for dep in code if (PROJECT / dep).is_dir()}
    needed = {
        next((f for f in folders if file.startswith(f"{f}/")), file) for file in closure(stage)
    }
    assert code == needed | folders
    groups = {"data", "backbone", "head", "augment"} & sections(stage)
    assert {f"conf/{group}/${{use.{group}}}.yaml" for group in groups} <= deps
    inputs = {f"inputs.{group}" for group in groups & {"data", "backbone"}}
    assert {f"${{{name}}}" for name in inputs} <= deps
    runner = set() if stage == "prepare" else {"threads"}
    assert set(listed["params"]) == sections(stage) | inputs | runner


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
    assert executed(done.stdout) == ["train_head", "finetune", "evaluate"]
    choice = "train_head.learning_rate=choice(1e-3,1e-2)"
    done = run(clone, "dvc", "exp", "run", "--queue", "-S", choice, "-S", "finetune.cut=none")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(clone, "dvc", "queue", "start", "-j", "2")
    assert done.returncode == 0, done.stderr
    shown = ""
    for _ in range(120):
        shown = run(clone, "dvc", "queue", "status").stdout
        if shown.count("Success") + shown.count("Failed") >= 2:
            break
        subprocess.run(["sleep", "2"], check=True)
    assert shown.count("Success") == 2, shown
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
