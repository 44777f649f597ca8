"""Structure: allowed imports, the files that each stage depends on, and what stays out."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from pipeline import runner
from pipeline.storage.outputs import STAGES

PROJECT = Path(__file__).parents[2]
PACKAGE = PROJECT / "pipeline"
MAY_IMPORT = {
    "errors": "",
    "settings": "errors",
    "storage": "settings",
    "cluster": "storage",
    "data": "storage",
    "intake": "data cluster",
    "networks": "data",
    "features": "networks cluster",
    "training": "networks",
    "finetuning": "training features",
    "evaluation": "networks",
    "serving": "networks",
    "export": "networks",
    "stages": "finetuning evaluation intake",
    "sections": "serving",
    "dialect": "data",
    "config": "stages sections dialect",
    "tracking": "config",
    "release": "tracking",
    "sweep": "tracking",
    "setup": "tracking",
    "teaching": "setup release",
    "api": "release",
    "commands": "release export sweep teaching",
    "runner": "commands",
    "__main__": "runner",
}
"""Package -> what it may import; what those may import is allowed, too."""


def allowed(package: str) -> set[str]:
    direct = set(MAY_IMPORT[package].split())
    return direct.union(*(allowed(item) for item in direct)) if direct else direct


def only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def imports(path: Path, for_types: bool = False) -> frozenset[str]:
    """Modules of this project that a file imports, with what it takes from them.

    When it runs; `for_types` adds those that only a type checker sees.
    """
    actual: set[str] = set()
    open_nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while open_nodes:
        node = open_nodes.pop()
        if only_for_types(node) and not for_types:
            continue
        if isinstance(node, ast.Import):
            actual |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            actual |= {f"{node.module}.{alias.name}" for alias in node.names}
        open_nodes += ast.iter_child_nodes(node)
    return frozenset(name for name in actual if name.startswith("pipeline."))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def closure(start: Path) -> set[Path]:
    """Files of the package that a file imports, directly or not, without the root's docstring."""
    actual: set[Path] = set()
    open_files = [start]
    while open_files:
        path = open_files.pop()
        if path in actual or not path.exists():
            continue
        actual.add(path)
        for name in imports(path):
            parts = name.split(".")[1:]
            for length in range(1, len(parts) + 1):
                module = PACKAGE.joinpath(*parts[:length])
                open_files += [module.with_suffix(".py"), module / "__init__.py"]
    return actual - {PACKAGE / "stages" / "__init__.py"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package: str) -> None:
    files = [*PACKAGE.glob(f"{package}.py"), *(PACKAGE / package).rglob("*.py")]
    assert files
    for path in files:
        for name in imports(path, for_types=True):
            other = name.split(".")[1]
            assert other == package or other in allowed(package), f"{path} imports {name}"


def test_every_room_has_its_row_and_its_face() -> None:
    rooms = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert rooms == set(MAY_IMPORT)
    for package in [item for item in rooms if (PACKAGE / item).is_dir()]:
        face = ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))
        assert face, f"{package} says nothing of itself"


def test_what_travels_with_a_model_needs_neither_hydra_nor_dvc_nor_optuna() -> None:
    for start in (PACKAGE / "serving").glob("*.py"):
        for path in closure(start):
            text = path.read_text()
            for foreign in ("hydra", "dvc", "optuna", "omegaconf"):
                assert f"import {foreign}" not in text, f"{path} is reachable from {start}"
                assert f"from {foreign}" not in text, f"{path} is reachable from {start}"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_what_a_stage_touches(stage: str) -> None:
    listed = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]
    deps = listed["deps"]
    assert len(deps) <= 12
    own = PACKAGE / "stages" / f"{stage}.py"
    # Where work is done changes no byte: neither the section cluster nor its room is listed.
    rooms = {room(path) for path in closure(own)} - {"stages", "cluster"}
    needed = {f"pipeline/{item}{'' if (PACKAGE / item).is_dir() else '.py'}" for item in rooms}
    assert {dep for dep in deps if dep.startswith("pipeline/")} == needed | {
        f"pipeline/stages/{stage}.py"
    }
    read = {f"outputs/{item}" for item in STAGES if f"folders.{item}" in own.read_text()}
    assert read <= set(deps)
    # What the help lists is what the stage reads; what no result depends on is no parameter.
    sections = set(runner.sections_of(import_module(f"pipeline.stages.{stage}")))
    sections -= {"activations", "cluster"}
    if stage == "extract_features":  # it has one setting, which the frozen part holds
        sections = sections - {"extract_features.batch_size"} | {stage}
    if stage == "prepare":
        assert "${prepare.exclude}" in deps
    # TensorFlow is configured with both before any stage but prepare.
    sections |= {"seed", "threads"} if stage != "prepare" else set()
    assert set(listed["params"]) == sections
    for section in sections & {"data", "backbone", "head", "augment"}:
        chosen = {f"conf/{section}/${{{section}.use}}.yaml"}
        if section in ("data", "backbone"):
            chosen.add(f"${{{section}.path}}")
        assert chosen <= set(deps) or "outputs/extract_features" in deps


def test_no_function_takes_more_than_six_arguments() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = [item.arg for item in named if item.arg not in ("self", "cls")]
                assert len(own) <= 6, f"{path}: {node.name} takes {', '.join(own)}"


def test_there_is_no_circle() -> None:
    """The table lists each package after those that it may import."""
    rooms = list(MAY_IMPORT)
    for package, direct in MAY_IMPORT.items():
        assert all(rooms.index(other) < rooms.index(package) for other in direct.split())
