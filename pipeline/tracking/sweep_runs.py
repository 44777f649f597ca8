"""MLflow runs of a sweep: one per study, and below it one per trial.

Runs are found by tags, so a resumed sweep continues its existing runs.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.errors import Stopped
from pipeline.storage.digests import digest
from pipeline.storage.outputs import ROOT
from pipeline.tracking import processes, records, store

if TYPE_CHECKING:
    from mlflow import MlflowClient


class TrialRun:
    """Tracker of a trial; this one logs nothing."""

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        """Log the metrics of an epoch."""

    def finish(self, metrics: dict[str, float]) -> None:
        """Log the final metrics."""


class Tracker:
    """Tracker of a study and its trials.

    Raises:
        InputError: The tracking store does not answer.
    """

    def __init__(self, config: Config, study: str) -> None:
        self._study, self._config = study, config
        self._client: MlflowClient | None = None
        if not config.tracking.enabled:
            return
        self._client = store.connect(config.tracking)
        self._experiment = store.experiment(self._client, config.tracking)
        self._data_md5 = digest(ROOT / "prepare")
        tags = {"sweep.study": study, "sweep.role": "study"}
        with store.locked():
            self._run = self._find_or_make(f"sweep {study}", tags, config)

    def start(self, settings: dict[str, Any]) -> None:
        """Set the study's run to RUNNING, with this process and the sweep's settings."""
        if self._client is None:
            return
        records.bury(self._client, self._experiment)
        self._client.set_tag(self._run, "sweep.settings", json.dumps(settings))
        self._take(self._run)

    @contextmanager
    def trial(self, number: int, name: str, config: Config) -> Iterator[TrialRun]:
        """Track a trial: FINISHED, KILLED if pruned or interrupted, FAILED if it raises.

        Raises:
            Gone: The tracking store no longer answers.
        """
        if self._client is None:
            yield TrialRun()
            return
        client = self._client
        tags = {
            "sweep.study": self._study,
            "sweep.role": "trial",
            "sweep.trial": str(number),
            "mlflow.parentRunId": self._run,
        }
        with store.answering(config.tracking):
            run = self._find_or_make(f"trial {number}: {name}", tags, config)
            self._take(run)

            def end(status: str, reason: BaseException | None) -> None:
                if isinstance(reason, Stopped):
                    client.set_tag(run, "pruned", str(reason))
                if status == "FAILED":
                    client.log_text(run, traceback.format_exc(), "traceback.txt")
                records.terminate(client, run, status, reason)

            with records.ending(end):
                yield _Tracked(client, run)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the study's run with the block, as `records.ending` does."""
        if self._client is None:
            yield
            return
        with records.ending(partial(records.terminate, self._client, self._run)):
            yield

    def log(self, folder: Path, metrics: dict[str, float]) -> None:
        """Log the sweep's results."""
        if self._client is None:
            return
        self._client.log_batch(self._run, metrics=records.metrics(metrics, 0))
        for path in sorted(folder.iterdir()):
            if path.suffix in (".yaml", ".csv", ".html"):
                self._client.log_artifact(self._run, str(path))

    def _find_or_make(self, name: str, tags: dict[str, str], config: Config) -> str:
        assert self._client is not None
        query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([self._experiment], query, max_results=1)
        if runs:
            return str(runs[0].info.run_id)
        everything = {**tags, **records.common_tags(config), "data.md5": self._data_md5}
        run = self._client.create_run(self._experiment, run_name=name, tags=everything)
        self._client.log_batch(run.info.run_id, params=records.params(config)[:100])
        self._client.log_inputs(run.info.run_id, [records.dataset(config, self._data_md5)])
        return str(run.info.run_id)

    def _take(self, run: str) -> None:
        """Set a run to RUNNING, with this process."""
        assert self._client is not None
        for key, value in processes.identity().items():
            self._client.set_tag(run, key, value)
        self._client.update_run(run, status="RUNNING")


class _Tracked(TrialRun):
    def __init__(self, client: MlflowClient, run: str) -> None:
        self._client, self._run = client, run

    def log(self, metrics: dict[str, float], epoch: int) -> None:
        self._client.log_batch(self._run, metrics=records.metrics(metrics, epoch))

    def finish(self, metrics: dict[str, float]) -> None:
        # The curve has the plain names, and MLflow shows its last value.
        best = {f"best_{k}" if k.startswith("val_") else k: v for k, v in metrics.items()}
        self._client.log_batch(self._run, metrics=records.metrics(best, 0))
