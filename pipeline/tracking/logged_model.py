"""The classifier as an MLflow LoggedModel, complete: it serves wherever it is copied to.

model.keras -> pyfunc with signature, input example, pinned requirements and the code that
decodes: what of this package serves it, as it is now, under a name of its own.
"""

from __future__ import annotations

import base64
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from pipeline.networks import model_file
from pipeline.serving import pyfunc
from pipeline.serving.defaults import DEFAULTS
from pipeline.storage import digests
from pipeline.storage.digests import file_md5
from pipeline.tracking import provenance, travelling

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

_NEEDED = ("tensorflow", "keras", "numpy", "pandas", "pillow", "filelock", "tqdm", "mlflow")


def log(client: MlflowClient, run_id: str, path: Path) -> LoggedModel:
    """Log a model file under a run.

    Args:
        client: Of the tracking store.
        run_id: Of the run that made it, or that registers it; it is FINISHED afterwards.
        path: A .keras file of this pipeline.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id):
        code = travelling.pack(Path(scratch))
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module=f"{code.name}.{travelling.ENTRY}",
            data_path=str(path),
            code_paths=[str(code)],
            signature=_signature(),
            input_example=_example(),
            pip_requirements=provenance.versions(*_needed(path)),
            model_config=dict(DEFAULTS),
            tags=identity(path),
        )
    return client.get_logged_model(logged.model_id)


def _needed(path: Path) -> tuple[str, ...]:
    """Packages that serve a model: those of its engine and of its layers, too."""
    engine = model_file.read_card(path).engine
    layers = tuple(name.replace("_", "-") for name in model_file.packages(path))
    return (*_NEEDED, *layers, *((engine["engine"],) if engine else ()))


def find(client: MlflowClient, experiment: str, path: Path) -> LoggedModel | None:
    """The model of an experiment that was logged of this file by this code, if any."""
    from mlflow.entities import LoggedModelStatus

    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in identity(path).items())
    models = client.search_logged_models([experiment], query)
    # Whoever is killed in the middle leaves one without its files.
    whole = [one for one in models if one.status == LoggedModelStatus.READY]
    return whole[0] if whole else None


def identity(path: Path) -> dict[str, str]:
    """Tags that tell one logged model from another: the file's digest and the code's."""
    return {"model.md5": file_md5(path), "code.sha256": digests.code_sha256()}


def _signature() -> ModelSignature:
    """A row's picture may be any of what `serving.Service.predict` takes.

    A stricter type would make one bad row fail all rows of its request.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array, Map

    anything = AnyType()  # type: ignore[no-untyped-call]
    answers: dict[str, Any] = {
        "label": DataType.string,
        "probability": DataType.double,
        "probabilities": Map(DataType.double),
        "known": DataType.boolean,
        "typicality": DataType.double,
        "labels": Array(DataType.string),
        "error": DataType.string,
    }
    return ModelSignature(
        Schema([ColSpec(anything, pyfunc.COLUMN)]),
        Schema([ColSpec(kind, name, required=False) for name, kind in answers.items()]),
    )


def _example() -> pd.DataFrame:
    """A grey picture, as a client sends it."""
    file = io.BytesIO()
    Image.new("L", (32, 32), 128).save(file, "PNG")
    return pd.DataFrame({pyfunc.COLUMN: [base64.b64encode(file.getvalue()).decode()]})
