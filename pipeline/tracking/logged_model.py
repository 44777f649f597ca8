"""The classifier as a self-contained MLflow LoggedModel, which serves wherever it is copied.

model.keras -> pyfunc with signature, input example, pinned requirements and code: the modules of
this package that serve it, as a package of their own. That is named after its content, so that an
application may have a package `pipeline`, and two versions of a model can be used in one process.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from pipeline.data.tasks import Task
from pipeline.networks import model_file
from pipeline.serving import pyfunc
from pipeline.serving.settings import DEFAULTS
from pipeline.storage import digests
from pipeline.storage.digests import file_md5
from pipeline.tracking import provenance

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

_HERE = Path(__file__).parents[1]
_NAME = _HERE.name
ENTRY = "serving.pyfunc"
"""Module in the package that MLflow loads a model with."""
_NEEDED = ("tensorflow", "keras", "numpy", "pandas", "pillow", "filelock", "tqdm", "mlflow")


def log(client: MlflowClient, run_id: str, path: Path) -> LoggedModel:
    """Log a .keras file of this pipeline under a run, which is FINISHED afterwards."""
    import mlflow

    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        code = pack(Path(scratch))
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module=f"{code.name}.{ENTRY}",
            data_path=str(path),
            code_paths=[str(code)],
            signature=_signature(model_file.read_card(path).predicts),
            input_example=_example(),
            pip_requirements=provenance.versions(*_needed(path)),
            model_config=dict(DEFAULTS),
            tags=identity(path),
        )
    return client.get_logged_model(logged.model_id)


def _needed(path: Path) -> tuple[str, ...]:
    """List the packages needed to serve a model, including its engine and layers."""
    engine = model_file.read_card(path).engine
    layers = tuple(name.replace("_", "-") for name in model_file.packages(path))
    return (*_NEEDED, *layers, *((engine["engine"],) if engine else ()))


def find(client: MlflowClient, experiment: str, path: Path) -> LoggedModel | None:
    """Find the model logged from this file by this code, if any."""
    from mlflow.entities import LoggedModelStatus

    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity(path).items())
    models = client.search_logged_models([experiment], query)
    # A killed process leaves a model without its files.
    whole = [model for model in models if model.status == LoggedModelStatus.READY]
    return whole[0] if whole else None


def identity(path: Path) -> dict[str, str]:
    """Return the tags that identify a logged model: digests of file and code."""
    return {"model.md5": file_md5(path), "code.sha256": digests.code_sha256()}


def _signature(task: Task) -> ModelSignature:
    """Describe input and output; an image may be anything that `Service.predict` takes.

    A stricter type would let one bad row fail the whole request.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array, Map

    anything = AnyType()  # type: ignore[no-untyped-call]
    kinds: dict[str, Any] = {
        "string": DataType.string,
        "strings": Array(DataType.string),
        "double": DataType.double,
        "boolean": DataType.boolean,
        "probabilities": Map(DataType.double),
    }
    answer = pyfunc.fields(task)
    return ModelSignature(
        Schema([ColSpec(anything, pyfunc.COLUMN)]),
        Schema([ColSpec(kinds[kind], name, required=False) for name, kind in answer.items()]),
    )


def _example() -> pd.DataFrame:
    """Create a grey image in the form that clients send."""
    file = io.BytesIO()
    Image.new("L", (32, 32), 128).save(file, "PNG")
    return pd.DataFrame({pyfunc.COLUMN: [base64.b64encode(file.getvalue()).decode()]})


def pack(folder: Path) -> Path:
    """Write the package into an existing folder; returns its path."""
    files = closure()
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.as_posix().encode() + b"\0" + (_HERE / file).read_bytes() + b"\0")
    package = folder / f"classifier_{digest.hexdigest()[:8]}"
    for file in files:
        target = package / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed((_HERE / file).read_text(encoding="utf-8"), package.name))
    return package


def closure() -> list[Path]:
    """List the files needed to serve a model, relative to this package, sorted."""
    files: set[Path] = set()
    tasks = [f"data.tasks.{path.stem}" for path in (_HERE / "data/tasks").glob("*.py")]
    waiting = {file for name in [ENTRY, *tasks] for file in _files(f"{_NAME}.{name}")}
    while waiting:
        file = waiting.pop()
        files.add(file)
        tree = ast.parse((_HERE / file).read_text(encoding="utf-8"))
        named = {name for node in _imports(tree) for name in _modules(node)}
        waiting |= {file for name in named for file in _files(name)} - files
    return sorted(files)


def _imports(tree: ast.Module) -> list[ast.ImportFrom]:
    """Find a module's imports from this package at run time."""
    for_types = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    ]
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").split(".")[0] == _NAME
        and node not in for_types
    ]


def _modules(node: ast.ImportFrom) -> set[str]:
    """Return names that may be modules: the module imported from, and its members."""
    return {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}


def _files(name: str) -> set[Path]:
    """Return the files that run when a module is imported: its packages' and its own."""
    parts = name.split(".")[1:]
    faces = [Path(*parts[:length]) / "__init__.py" for length in range(len(parts) + 1)]
    candidates = [*faces, Path(*parts).with_suffix(".py") if parts else faces[0]]
    return {file for file in candidates if (_HERE / file).is_file()}


def _renamed(source: str, name: str) -> str:
    """Rename the package in a module's imports."""
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == _NAME:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace(f"from {_NAME}", f"from {name}", 1)
    return "".join(lines)
