"""Experiments in the tracking store: settings, metrics and outputs of evaluate.

store -> `Experiment`s: parents of finished runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.data import predictions
from pipeline.data.predictions import Predictions
from pipeline.errors import InputError
from pipeline.storage import tables
from pipeline.storage.outputs import STAGES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_EVALUATE = f"run.{STAGES[-1]}"
_MIN_ID_LENGTH = 4


@dataclass(frozen=True)
class Judged:
    """Outputs of evaluate for the fine-tuned model.

    Attributes:
        intervals: Metric -> value, low, high; low and high may be None.
        predictions: Predictions for the evaluated images.
    """

    intervals: dict[str, dict[str, Any]]
    predictions: Predictions


@dataclass(frozen=True)
class Experiment:
    """An evaluated state of the pipeline, with id, name and settings of its parent run."""

    run_id: str
    name: str
    settings: dict[str, str]
    _client: MlflowClient = field(repr=False)
    _evaluated: str = field(repr=False)

    @cached_property
    def judged(self) -> Judged:
        """Outputs of evaluate, read once."""
        with TemporaryDirectory() as scratch:
            intervals, saved = (
                Path(self._client.download_artifacts(self._evaluated, name, scratch))
                for name in ("intervals.json", predictions.FILE)
            )
            return Judged(tables.read_json(intervals)["fine_tuned"], predictions.read(saved))

    def same_images(self, other: Experiment) -> bool:
        """Check if both were evaluated on the same images."""
        mine, theirs = self.judged.predictions, other.judged.predictions
        return mine.paths == theirs.paths and mine.labels == theirs.labels


def evaluated(client: MlflowClient, experiment: str, names: Sequence[str]) -> list[Experiment]:
    """List evaluated experiments, the newest first.

    `names` are names, DVC names or ids (or their beginnings) of parents; all if empty.

    Raises:
        InputError: A name matches no experiment, or several.
    """
    import mlflow

    finished = mlflow.search_runs(
        [experiment],
        "tags.`pipeline.state` LIKE '%' AND attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
        output_format="list",
    )
    parents = [run for run in finished if _EVALUATE in run.data.tags]
    if names:
        parents = [_named(parents, name) for name in names]
    return [_experiment(client, run) for run in parents]


def _named(parents: list[Run], name: str) -> Run:
    def matches(run: Run) -> bool:
        begins = len(name) >= _MIN_ID_LENGTH and run.info.run_id.startswith(name)
        return begins or name in (run.info.run_name, run.data.tags.get("dvc.exp_name"))

    named = [run for run in parents if matches(run)]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(run.info.run_id[:8] for run in named[:5])
        raise InputError(f"{name} matches {len(named)} experiments: use an id, such as {ids}")
    existing = ", ".join(f"{run.info.run_name} ({run.info.run_id[:8]})" for run in parents[:5])
    raise InputError(
        f"no evaluated experiment {name}: there are {existing or 'none; run dvc repro'}"
    )


def _experiment(client: MlflowClient, run: Run) -> Experiment:
    return Experiment(
        run.info.run_id, run.info.run_name, dict(run.data.params), client, run.data.tags[_EVALUATE]
    )
