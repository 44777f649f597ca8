"""Experiments as the tracking store knows them: settings, metrics and what evaluate wrote.

store -> `Experiment`s. The parents of runs that came to their end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.data import predictions
from pipeline.data.predictions import Predictions
from pipeline.errors import InputError
from pipeline.storage.outputs import STAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_EVALUATE = f"run.{STAGES[-1]}"
_FEWEST_LETTERS = 4


@dataclass(frozen=True)
class Judged:
    """What evaluate wrote of the fine-tuned model.

    Attributes:
        intervals: Metric -> value, low, high; the two ends may be None.
        said: Of which images what was said.
    """

    intervals: dict[str, dict[str, Any]]
    said: Predictions


@dataclass(frozen=True)
class Experiment:
    """A state of the pipeline that was evaluated.

    Attributes:
        run_id: Of its parent.
        name: Of its parent.
        settings: Full name -> value, as text.
        metrics: Of its parent.
    """

    run_id: str
    name: str
    settings: dict[str, str]
    metrics: dict[str, float]
    _client: MlflowClient = field(repr=False)
    _evaluated: str = field(repr=False)

    @cached_property
    def judged(self) -> Judged:
        """What evaluate wrote, read once."""
        with TemporaryDirectory() as scratch:
            intervals, said = (
                Path(self._client.download_artifacts(self._evaluated, name, scratch))
                for name in ("intervals.json", predictions.FILE)
            )
            by_model = json.loads(intervals.read_text(encoding="utf-8"))
            return Judged(by_model["fine_tuned"], predictions.read(said))

    def same_images(self, other: Experiment) -> bool:
        """Whether both were judged on the same images."""
        mine, theirs = self.judged.said, other.judged.said
        return mine.paths == theirs.paths and bool((mine.labels == theirs.labels).all())


def evaluated(client: MlflowClient, experiment: str, asked: Sequence[str]) -> list[Experiment]:
    """Experiments that were evaluated, the newest first.

    Args:
        client: Of the tracking store.
        experiment: Id of the MLflow experiment.
        asked: Names, DVC's names or ids (or their first letters) of parents; all if empty.

    Raises:
        InputError: Nothing, or more than one thing, goes by a name.
    """
    parents = [run for run in _parents(client, experiment) if _EVALUATE in run.data.tags]
    if asked:
        parents = [_named(parents, name) for name in asked]
    return [_experiment(client, run) for run in parents]


def _parents(client: MlflowClient, experiment: str) -> list[Run]:
    parents: list[Run] = []
    token: str | None = None
    while True:
        page: Any = client.search_runs(
            [experiment],
            "tags.`pipeline.state` LIKE '%' AND attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        parents += page
        token = page.token
        if not token:
            return parents


def _named(parents: list[Run], name: str) -> Run:
    def goes_by(run: Run) -> bool:
        begins = len(name) >= _FEWEST_LETTERS and run.info.run_id.startswith(name)
        return begins or name in (run.info.run_name, run.data.tags.get("dvc.exp_name"))

    named = [run for run in parents if goes_by(run)]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(run.info.run_id[:8] for run in named[:5])
        raise InputError(f"{name} names {len(named)} experiments: give an id, such as {ids}")
    known = ", ".join(f"{run.info.run_name} ({run.info.run_id[:8]})" for run in parents[:5])
    raise InputError(
        f"no evaluated experiment is called {name}: there are {known or 'none; run dvc repro'}"
    )


def _experiment(client: MlflowClient, run: Run) -> Experiment:
    return Experiment(
        run.info.run_id,
        run.info.run_name,
        dict(run.data.params),
        dict(run.data.metrics),
        client,
        run.data.tags[_EVALUATE],
    )
