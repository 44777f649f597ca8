"""MLflow runs: a parent per state of the pipeline, a child per executed stage.

stage + config + outputs -> runs, tags, metrics, artifacts. The only file that manages MLflow runs.
A state is the resolved config, code and data; its parent is found by a tag. Run ids are never
written into DVC outputs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from pipeline.config import Config
from pipeline.data import predictions
from pipeline.errors import redacted
from pipeline.storage import derived, tables
from pipeline.storage.digests import digest
from pipeline.storage.outputs import PARAMS, ROOT, STAGES
from pipeline.tracking import parents, processes, provenance, records, store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


_LOGGED = (".csv", ".json", ".png", ".txt")
_LOGGED_MAX_BYTES = 20_000_000
_HEADLINES = {
    "train_head": ("val_accuracy", "val_r2", "val_loss", "val_score"),
    "finetune": ("val_accuracy", "val_r2", "val_loss", "val_score", "trainable_parameters"),
}


class StageRun:
    """Tracker of a stage; this one logs nothing."""

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        """Log the metrics of an epoch."""

    def finish(self, metrics: dict[str, float], out: Path) -> None:
        """Log the final metrics and the output, which is already in place."""


def attach(config: Config, path: Path) -> None:
    """Log a file to the run of the outputs' state, if there is one."""
    with _of_outputs(config) as (client, run):
        if run:
            client.log_artifact(run.info.run_id, str(path))


def seconds(config: Config) -> float | None:
    """Return how long the stages took that made the outputs; None if it is not known."""
    with _of_outputs(config) as (client, run):
        taken = records.timings(client, run) if run else {}
        return sum(taken.values()) if set(taken) == set(STAGES) else None


@contextmanager
def _of_outputs(config: Config) -> Iterator[tuple[Any, Run | None]]:
    """Find the parent run of the outputs' state: None if there is none, or no tracking."""
    if not config.tracking.enabled:
        yield None, None
        return
    client = store.connect(config.tracking)
    with store.answering(config.tracking):
        experiment = store.experiment(client, config.tracking)
        state = provenance.state(config.essentials(), digest(ROOT / STAGES[0]))
        query = f"tags.`pipeline.state` = '{state}'"
        runs = client.search_runs([experiment], query, max_results=1)
        yield client, runs[0] if runs else None


@contextmanager
def stage_run(stage: str, config: Config) -> Iterator[StageRun]:
    """Track the execution of a stage; the run is FAILED if the block raises.

    Raises:
        InputError: The tracking store does not answer, or stops answering.
    """
    if not config.tracking.enabled:
        yield StageRun()
        return
    print(f"logging to {store.public_address(config.tracking)}")
    if refusal := provenance.refusal():
        print(f"warning: {refusal}", file=sys.stderr)
    client = store.connect(config.tracking)
    with store.answering(config.tracking):
        experiment = store.experiment(client, config.tracking)
        records.bury(client, experiment)
        run = _Tracked(client, experiment, stage, config)
        with records.ending(run.end):
            yield run


@contextmanager
def run_of_outputs(
    name: str, client: MlflowClient, experiment: str, config: Config, tags: Mapping[str, str]
) -> Iterator[str]:
    """Create a run for an action on the outputs and yield its id; FAILED if the block raises.

    Its parent is that of the outputs' state, if known.
    """
    records.bury(client, experiment)
    tags = {**records.common_tags(config), **tags}
    made = f"tags.`dvc.out.md5` = '{digest(ROOT / STAGES[-1])}'"
    for run in client.search_runs([experiment], made, max_results=1):
        tags["mlflow.parentRunId"] = run.data.tags["mlflow.parentRunId"]
    run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id

    with records.ending(partial(records.terminate, client, run_id)):
        yield run_id


class _Tracked(StageRun):
    """The child run of an executing stage, and its parent once the data are known."""

    def __init__(self, client: MlflowClient, experiment: str, stage: str, config: Config) -> None:
        self._client, self._experiment, self._stage = client, experiment, stage
        self._config = config
        self._parent: str | None = None
        tags = {"dvc.stage": stage, "mlflow.runName": stage, **records.common_tags(config)}
        self._run = client.create_run(experiment, run_name=stage, tags=tags).info.run_id
        if stage != STAGES[0]:
            self._attach()

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        self._client.log_batch(self._run, metrics=records.metrics(metrics, epoch))

    def finish(self, metrics: dict[str, float], out: Path) -> None:
        if self._parent is None:
            self._attach()
        assert self._parent is not None
        self._client.set_tag(self._run, "dvc.out.md5", digest(out))
        self._client.log_batch(self._run, metrics=records.metrics(metrics, 0))
        self._client.log_batch(self._parent, metrics=_headlines(self._stage, metrics))
        self._log_derived(out, self._run, self._parent)
        if (out / "backbone.json").exists():
            weights = tables.read_json(out / "backbone.json")["weights_sha256"]
            for run in (self._run, self._parent):
                self._client.set_tag(run, "backbone.weights_sha256", weights)
        self._log_files(out)
        if self._stage == "finetune" and self._config.tracking.log_model:
            from pipeline.tracking import logged_model

            print("logging the model")
            logged_model.log(self._client, self._run, out / "model.keras")
        self._link_skipped()
        if self._stage == STAGES[-1]:
            timings = records.timings(self._client, self._client.get_run(self._parent))
            parents.present(self._client, self._parent, out, ROOT / STAGES[0], timings)

    def end(self, status: str, reason: BaseException | None) -> None:
        for run in filter(None, (self._run, self._parent)):
            records.terminate(self._client, run, status, reason)

    def _attach(self) -> None:
        """Find or create the parent of this state of the pipeline."""
        data_md5 = digest(ROOT / STAGES[0])
        state = provenance.state(self._config.essentials(), data_md5)
        with store.locked():
            existing = self._search(f"tags.`pipeline.state` = '{state}'")
            parent = existing[0] if existing else self._make_parent(state, data_md5)
        self._parent = parent.info.run_id
        # The process first: a run that is RUNNING must say whose death ends it.
        for name, value in {**processes.identity(), **records.experiment_tags()}.items():
            self._client.set_tag(self._parent, name, value)
        self._client.update_run(self._parent, status="RUNNING")
        self._client.set_tag(self._parent, f"run.{self._stage}", self._run)
        for name, value in {"mlflow.parentRunId": self._parent, "data.md5": data_md5}.items():
            self._client.set_tag(self._run, name, value)
        self._client.log_inputs(self._run, [records.dataset(self._config, data_md5)])

    def _make_parent(self, state: str, data_md5: str) -> Run:
        config = self._config
        same = {"params.`data.use`": config.data.use, "params.`backbone.use`": config.backbone.use}
        query = "tags.`pipeline.state` LIKE '%'"
        query += "".join(f" and {key} = '{value}'" for key, value in same.items())
        first = self._search(query, order="attributes.start_time ASC")
        first_run = first[0] if first else None
        name = parents.name(config.data.title, config.flat(), data_md5, first_run)
        tags = {"pipeline.state": state, "data.md5": data_md5, **records.common_tags(config)}
        parent = self._client.create_run(
            self._experiment, run_name=os.environ.get("DVC_EXP_NAME", name), tags=tags
        )
        run_id = parent.info.run_id
        params = records.params(config)
        for start in range(0, len(params), 100):
            self._client.log_batch(run_id, params=params[start : start + 100])
        self._client.log_inputs(run_id, [records.dataset(config, data_md5)])
        resolved = redacted(OmegaConf.to_yaml(OmegaConf.structured(config)))
        self._client.log_text(run_id, resolved, "config.yaml")
        params_text = PARAMS.read_text(encoding="utf-8")
        self._client.log_text(run_id, redacted(params_text), PARAMS.name)
        if patch := provenance.patch():
            self._client.log_text(run_id, redacted(patch), "changes.patch")
        return parent

    def _log_derived(self, out: Path, *runs: str) -> None:
        """Log derived values in place of settings that are `auto`."""
        from mlflow.entities import Param

        params = [Param(name, str(item.value)) for name, item in derived.read(out).items()]
        for run in runs if params else ():
            self._client.log_batch(run, params=params)
            for param in params:
                if param.key == "finetune.cut":
                    self._client.set_tag(run, "cut", param.value)

    def _log_files(self, out: Path) -> None:
        for path in sorted(out.rglob("*")):
            small = path.suffix in _LOGGED and path.stat().st_size <= _LOGGED_MAX_BYTES
            if small or path.name == predictions.FILE:  # read by `compare` and the gate
                folder = path.parent.relative_to(out).as_posix()
                self._client.log_artifact(self._run, str(path), None if folder == "." else folder)
                if path.suffix == ".png":
                    self._client.log_artifact(self._parent, str(path), "plots")

    def _link_skipped(self) -> None:
        """Link the parent to the runs that created the outputs of skipped stages."""
        assert self._parent is not None
        tags = self._client.get_run(self._parent).data.tags
        for stage in STAGES[: STAGES.index(self._stage)]:
            if f"run.{stage}" in tags or not (ROOT / stage).exists():
                continue
            self._log_derived(ROOT / stage, self._parent)
            md5 = digest(ROOT / stage)
            made_by = self._search(f"tags.`dvc.out.md5` = '{md5}' and tags.`dvc.stage` = '{stage}'")
            if made_by:
                self._client.set_tag(self._parent, f"run.{stage}", made_by[0].info.run_id)
                made = _headlines(stage, made_by[0].data.metrics)
                self._client.log_batch(self._parent, metrics=made)

    def _search(self, query: str, order: str = "attributes.start_time DESC") -> list[Run]:
        runs = self._client.search_runs([self._experiment], query, max_results=1, order_by=[order])
        return list(runs)


def _headlines(stage: str, metrics: dict[str, float]) -> list[Any]:
    """Select the metrics of a stage for comparing experiments."""
    if stage == "evaluate":
        return records.metrics(metrics, 0)
    names = _HEADLINES.get(stage, ())
    return records.metrics(
        {f"{stage}.{name}": metrics[name] for name in names if name in metrics}, 0
    )
