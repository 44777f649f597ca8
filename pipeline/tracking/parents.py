"""Presentation of a parent run: name, learning curves, verdict, tables.

config + outputs of evaluate -> name, tags, metrics, description and tables of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.data import predictions
from pipeline.data.manifest import Manifest
from pipeline.storage import tables
from pipeline.tracking import records

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_MAX_NAME, _MAX_VALUE = 40, 16
_MISTAKES, _ROWS = 50, 256
_CURVE = "curves/"
_CURVES = Path("vega/learning_curves.csv")
INTERVAL = "interval"
"""Tag of evaluated parents."""


def name(title: str, settings: Mapping[str, Any], data_md5: str, first: Run | None) -> str:
    """Name a state of the pipeline by its data, and by how it differs from the first one.

    `first` has the same data and backbone; None if this is the first.
    """
    if first is None:
        return cut_off(f"{title} {settings['backbone.use']}", _MAX_NAME)
    before = first.data.params
    changed = [
        f"{key.rpartition('.')[2]}={cut_off(str(value), _MAX_VALUE)}"
        for key, value in settings.items()
        if key in before and before[key] != str(value)
    ]
    if not changed:
        same_data = data_md5 == first.data.tags.get("data.md5")
        changed = ["other code" if same_data else f"data {data_md5[:7]}"]
    # Differences come first: the UI cuts off the end.
    return cut_off(f"{', '.join(changed)} ({title})", _MAX_NAME)


def cut_off(text: str, most: int) -> str:
    """Shorten a text to a number of characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def present(
    client: MlflowClient, parent: str, evaluated: Path, prepared: Path, seconds: Mapping[str, float]
) -> None:
    """Show the results of evaluate in a parent run; `seconds` maps each stage to its time."""
    intervals = tables.read_json(evaluated / "intervals.json")["fine_tuned"]
    data = Manifest(prepared)
    first = data.task.headline[0]
    low, high = (intervals[first][end] for end in ("low", "high"))
    client.set_tag(parent, INTERVAL, f"{low:.3f} to {high:.3f}")
    headline = {name: intervals[name]["value"] for name in data.task.headline}
    headline["seconds"] = sum(seconds.values())
    client.log_batch(parent, metrics=records.metrics(headline, 0))
    existing = client.get_run(parent).data.metrics  # the same state has the same curves
    drawn = any(key.startswith(_CURVE) for key in existing)
    for line in () if drawn else tables.read_records(evaluated / _CURVES):
        curve = {
            f"{_CURVE}{key}": float(value)
            for key, value in line.items()
            if key != "epoch" and value not in ("", "nan")
        }
        client.log_batch(parent, metrics=records.metrics(curve, int(float(line["epoch"]))))
    client.set_tag(parent, "mlflow.note.content", _description(client, parent, evaluated))
    _log_tables(client, parent, evaluated, data)


def _description(client: MlflowClient, parent: str, evaluated: Path) -> str:
    """Format the verdict and links as Markdown, one sentence per line."""
    lines = []
    for title, comparison in tables.read_json(evaluated / "comparison.json").items():
        lines += [f"**{title.replace('_', ' ').capitalize()}**", ""]
        lines += [f"- {sentence}" for sentence in comparison["verdict"]]
    lines.append("")
    tags = client.get_run(parent).data.tags
    experiment = client.get_run(parent).info.experiment_id
    page = f"#/experiments/{experiment}/runs"
    lines.append(f"[Report and tables]({page}/{parent}/artifacts)")
    stages = sorted(key for key in tags if key.startswith("run."))
    links = [f"[{key.removeprefix('run.')}]({page}/{tags[key]})" for key in stages]
    return "\n".join([*lines, "", "Stages: " + ", ".join(links)])


def _log_tables(client: MlflowClient, parent: str, evaluated: Path, data: Manifest) -> None:
    """Log scores by class, and the most confident mistakes with their images."""
    scores = tables.read_json(evaluated / "per_class.json")
    by_class: dict[str, list[Any]] = {"class": list(scores)}
    for key in next(iter(scores.values()), {}):
        by_class[key] = [scores[label][key] for label in scores]
    if scores:
        client.log_table(parent, by_class, "tables/per_class.json")
    mistakes = confident_mistakes(evaluated)
    if not mistakes:
        return
    rows = {row.path: place for place, row in enumerate(data.rows)}
    images = [Image.fromarray(np.asarray(data.images[rows[row["path"]]])) for row in mistakes]
    table: dict[str, list[Any]] = {"image": images}
    for key in ("path", "label", "prediction", "probability", "known"):
        table[key] = [row[key] for row in mistakes]
    client.log_table(parent, table, "tables/mistakes.json")


def confident_mistakes(evaluated: Path) -> list[dict[str, Any]]:
    """List the misclassified images, the most confident mistakes first."""
    from pyarrow import compute, parquet

    wrong: list[dict[str, Any]] = []
    for batch in parquet.ParquetFile(evaluated / predictions.FILE).iter_batches(_ROWS):
        mistaken = compute.not_equal(batch.column("label"), batch.column("prediction"))
        for row in batch.filter(mistaken).to_pylist():
            wrong.append({**row, "probability": float(max(row.pop("probabilities")))})
        wrong = sorted(wrong, key=lambda row: -row["probability"])[:_MISTAKES]
    return wrong
