"""Contents of every MLflow run: process, code, config, data.

config + outputs -> tags, params, metrics, dataset. Creates no runs.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.errors import Stopped, redacted
from pipeline.settings import is_auto
from pipeline.storage.outputs import STAGES
from pipeline.tracking import processes, provenance, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def bury(client: MlflowClient, experiment: str) -> None:
    """Mark runs FAILED whose process on this machine was killed."""
    host = socket.gethostname()
    query = f"attributes.status = 'RUNNING' and tags.`process.host` = '{host}'"
    for run in client.search_runs([experiment], query):
        if processes.dead(run.data.tags):
            client.set_tag(run.info.run_id, "error", "the process was killed")
            client.set_terminated(run.info.run_id, "FAILED")


@contextmanager
def ending(end: Callable[[str, BaseException | None], None]) -> Iterator[None]:
    """Call `end` with the final status of a run and what ended it, whatever happens in the block.

    FINISHED; KILLED if it was interrupted or stopped; FAILED if it raised. Nothing is reported if
    the store does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException:
        raise
    except (Stopped, SystemExit, KeyboardInterrupt) as reason:
        end("KILLED", reason)
        raise
    except BaseException as error:
        end("FAILED", error)
        raise
    end("FINISHED", None)


def terminate(client: MlflowClient, run_id: str, status: str, reason: BaseException | None) -> None:
    """End a run; a failed one is tagged with its error."""
    if status == "FAILED":
        client.set_tag(run_id, "error", f"{type(reason).__name__}: {reason}"[:5000])
    client.set_terminated(run_id, status)


def experiment_tags() -> dict[str, str]:
    """Name the DVC experiment, if there is one."""
    return {"dvc.exp_name": name} if (name := os.environ.get("DVC_EXP_NAME")) else {}


def common_tags(config: Config) -> dict[str, str]:
    """Return tags for network, cut, code and process."""
    return {
        "backbone": config.backbone.use,
        "cut": str(config.finetune.cut),
        **provenance.git_tags(),
        **experiment_tags(),
        **processes.identity(),
    }


def metrics(values: dict[str, float], step: int) -> list[Any]:
    """Convert values to MLflow metrics of an epoch, or of a whole run with step 0."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items() if key != "epoch"]


def timings(client: MlflowClient, parent: Run) -> dict[str, float]:
    """Map each stage to the seconds of its run, up to now if it is still running."""
    from mlflow.exceptions import MlflowException

    seconds = {}
    for stage in STAGES:
        if run := parent.data.tags.get(f"run.{stage}"):
            try:
                info = client.get_run(run).info
            except MlflowException as error:
                if not store.is_gone(error):
                    raise
                continue  # it was removed, so its time is missing
            end = info.end_time or int(time.time() * 1000)
            seconds[stage] = (end - info.start_time) / 1000
    return seconds


def dataset(config: Config, data_md5: str) -> Any:
    """Describe the dataset for MLflow."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=config.data.use,
        digest=data_md5.removesuffix(".dir"),
        source_type="pipeline",
        source=redacted(json.dumps(asdict(config.data))),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def params(config: Config) -> list[Any]:
    """List every setting that results depend on as MLflow params, except those that are `auto`."""
    from mlflow.entities import Param

    settings = config.flat().items()
    return [
        Param(key, redacted(str(value))[:6000]) for key, value in settings if not is_auto(value)
    ]
