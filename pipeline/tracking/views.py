"""Views of the MLflow UI, stored as tags of an experiment.

A view is what the UI's button Share saves: filter, order, columns and charts, as JSON in a tag
whose last part is its key in the address.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.tracking.parents import INTERVAL

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "mlflow.sharedViewState."
_SCORE = "best_val_score"
VIEWS = {"experiments": "TABLE", "sweeps": "CHART"}
"""Key of each view -> mode in which it opens."""


def save(client: MlflowClient, experiment: str) -> None:
    """Save the views, replacing any changes."""
    for key, view in (("experiments", _experiments()), ("sweeps", _sweeps())):
        client.set_experiment_tag(experiment, f"{_TAG}{key}", json.dumps(view))


def address(server: str, experiment: str, key: str) -> str:
    """Return the address of a view, one of `VIEWS`, on a server."""
    page = f"{server}/#/experiments/{experiment}/runs"
    return f"{page}?viewStateShareKey={key}&compareRunsMode={VIEWS[key]}"


def _experiments() -> dict[str, Any]:
    """Show evaluated parents, the newest first."""
    return _view(
        # Failed and interrupted runs have no such tag.
        f"attributes.status = 'FINISHED' and tags.`{INTERVAL}` LIKE '%'",
        {
            "metrics.`accuracy`": 90,
            f"tags.`{INTERVAL}`": 145,
            "metrics.`log_loss`": 90,
            "metrics.`mean_average_precision`": None,
            "metrics.`mean_absolute_error`": None,
            "params.`backbone.use`": 130,
            "params.`finetune.cut`": 150,
            "params.`finetune.learning_rate`": 110,
            "params.`seed`": 60,
            "params.`data.use`": 100,
            "metrics.`seconds`": 90,
        },
        [
            _chart("BAR", metricKey="accuracy", runsCountToCompare=20),
            _line("curves/val_accuracy"),
            _line("curves/val_loss"),
            _line("curves/loss"),
        ],
    )


def _sweeps() -> dict[str, Any]:
    """Show trials, the best first."""
    params = ["backbone.use", "finetune.cut", "finetune.learning_rate"]
    return _view(
        "tags.`sweep.role` = 'trial'",
        dict.fromkeys(
            (
                *(f"metrics.`{_SCORE}`", "metrics.`best_val_accuracy`"),
                *(f"params.`{name}`" for name in params),
                *("metrics.`seconds`", "tags.`sweep.study`"),
            )
        ),
        [
            _chart(
                "PARALLEL",
                selectedParams=params,
                selectedMetrics=["best_val_accuracy", _SCORE],
                showAllRuns=True,
                runsCountToCompare=100,
            ),
            _line("val_score"),
            _line("val_accuracy"),
        ],
        order=(f"metrics.`{_SCORE}`", True),
    )


def _view(
    rule: str,
    columns: Mapping[str, int | None],
    charts: Sequence[dict[str, Any]],
    order: tuple[str, bool] = ("attributes.start_time", False),
) -> dict[str, Any]:
    placed = [
        {**chart, "uuid": f"overview-{place}", "metricSectionId": _section(chart)}
        for place, chart in enumerate(charts)
    ]
    sections = [
        {"uuid": name, "name": name, "display": True, "isReordered": False}
        for name in dict.fromkeys(chart["metricSectionId"] for chart in placed)
    ]
    return {
        "searchFilter": rule,
        "orderByKey": order[0],
        "orderByAsc": order[1],
        "selectedColumns": list(columns),
        "columnOrder": ["Run Name", *columns],
        "columnWidths": {name: width for name, width in columns.items() if width},
        "compareRunSections": sections,
        "compareRunCharts": placed,
        "runsHiddenMode": "FIRST_20_RUNS",
    }


def _section(chart: dict[str, Any]) -> str:
    """Return the section of a chart: that of the metric's prefix, which the UI always shows."""
    prefix, slash, _ = chart.get("metricKey", "").partition("/")
    return prefix if slash else "Overview"


def _line(metric: str) -> dict[str, Any]:
    return _chart(
        "LINE",
        metricKey=metric,
        selectedMetricKeys=[metric],
        xAxisKey="step",
        yAxisKey="metric",
        xAxisScaleType="linear",
        scaleType="linear",
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
        runsCountToCompare=20,
    )


def _chart(kind: str, **settings: Any) -> dict[str, Any]:
    return {"type": kind, "deleted": False, "isGenerated": False, **settings}
