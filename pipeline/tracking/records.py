"""What every MLflow run says of itself: process, code, config, data.

config + outputs -> tags, params, metrics, dataset. Makes no run.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline import processes, provenance
from pipeline.stages import STAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# Sections that no result depends on.
_BESIDE = (
    *("tracking", "pretrain", "activations", "sweep", "sampler", "pruner"),
    *("promote", "serve", "demo"),
)


def bury(client: MlflowClient, experiment: str) -> None:
    """Mark runs FAILED whose process on this machine was killed before it could say so."""
    host = socket.gethostname()
    query = f"attributes.status = 'RUNNING' and tags.`process.host` = '{host}'"
    for run in client.search_runs([experiment], query):
        if processes.dead(run.data.tags):
            client.set_tag(run.info.run_id, "error", "the process was killed")
            client.set_terminated(run.info.run_id, "FAILED")


def experiment_tags() -> dict[str, str]:
    """Which DVC experiment this is, if it is one."""
    return {"dvc.exp_name": name} if (name := os.environ.get("DVC_EXP_NAME")) else {}


def common_tags(config: Any) -> dict[str, str]:
    """Network, cut, code and process."""
    return {
        "backbone": config.use.backbone,
        "cut": str(config.finetune.cut),
        **provenance.git_tags(),
        **experiment_tags(),
        **processes.identity(),
    }


def essentials(config: Any) -> dict[str, Any]:
    """The part of the config that results depend on."""
    essentials = asdict(config)
    for section in _BESIDE:
        del essentials[section]
    for group in ("tracking", "sampler", "pruner"):
        del essentials["use"][group]
    return essentials


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full name and value of every setting in nested sections."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def metrics(values: dict[str, float], step: int) -> list[Any]:
    """What MLflow logs of an epoch, or with step 0 of a whole run."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items() if key != "epoch"]


def timings(client: MlflowClient, parent: Run) -> dict[str, float]:
    """Stage -> seconds of the run that a parent names for it, up to now if it still runs."""
    found = {}
    for stage in STAGES:
        if run := parent.data.tags.get(f"run.{stage}"):
            info = client.get_run(run).info
            end = info.end_time or int(time.time() * 1000)
            found[stage] = (end - info.start_time) / 1000
    return found


def dataset(config: Any, data_md5: str) -> Any:
    """The data set, as MLflow shows it with a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=config.use.data,
        digest=data_md5.removesuffix(".dir"),
        source_type="pipeline",
        source=json.dumps(asdict(config.data)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def params(config: Any) -> list[Any]:
    """Every setting that results depend on, as MLflow params."""
    from mlflow.entities import Param

    return [Param(key, str(value)[:6000]) for key, value in flat(essentials(config))]
