"""What a parent run shows of itself: a name, its learning curves, its verdict, its tables.

config + what evaluate wrote -> name, tags, metrics, description and tables of the run.
"""

from __future__ import annotations

import json
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

_SHOWN, _LONGEST = 4, 28
_MISTAKES, _ROWS = 50, 256
_CURVE = "curves/"
_CURVES = Path("vega/learning_curves.csv")
INTERVAL = "accuracy_interval"
"""Tag of a parent that was evaluated."""


def name(settings: Mapping[str, Any], data_md5: str, first: Run | None) -> str:
    """A name that tells a state of the pipeline from the first one on these data.

    Args:
        settings: Full name -> value of all settings.
        data_md5: Of the prepared data.
        first: The first parent with the same data and backbone; None if this is it.
    """
    plain = f"{settings['data.use']} {settings['backbone.use']}"
    if first is None:
        return plain
    before = first.data.params
    changed = [
        f"{key}={_short(str(value))}"
        for key, value in settings.items()
        if key in before and before[key] != str(value)
    ]
    if not changed:
        if data_md5 != first.data.tags.get("data.md5"):
            changed = [f"data {data_md5[:7]}"]
        else:
            changed = ["other code"]
    more = len(changed) - _SHOWN
    shown = ", ".join(changed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return f"{shown} ({plain})"  # what differs first: the UI cuts the end off


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def present(
    client: MlflowClient,
    parent: str,
    evaluated: Path,
    prepared: Path,
    seconds: Mapping[str, float],
) -> None:
    """Let a parent show what evaluate found.

    Args:
        client: Of the tracking store.
        parent: Its id.
        evaluated: Output of evaluate.
        prepared: Output of prepare.
        seconds: Stage -> how long it took.
    """
    intervals = _json(evaluated / "intervals.json")["fine_tuned"]
    one = intervals["accuracy"]
    client.set_tag(parent, INTERVAL, f"{one['low']:.3f} to {one['high']:.3f}")
    shown = {name: intervals[name]["value"] for name in ("accuracy", "log_loss")}
    shown["seconds"] = sum(seconds.values())
    client.log_batch(parent, metrics=records.metrics(shown, 0))
    known = client.get_run(parent).data.metrics  # the same state has the same curves
    drawn = any(key.startswith(_CURVE) for key in known)
    for line in () if drawn else tables.read_records(evaluated / _CURVES):
        curve = {
            f"{_CURVE}{key}": float(value)
            for key, value in line.items()
            if key != "epoch" and value not in ("", "nan")
        }
        client.log_batch(parent, metrics=records.metrics(curve, int(float(line["epoch"]))))
    client.set_tag(parent, "mlflow.note.content", _description(client, parent, evaluated))
    _log_tables(client, parent, evaluated, Manifest(prepared))


def _description(client: MlflowClient, parent: str, evaluated: Path) -> str:
    """The verdict, and where to look on, as Markdown."""
    lines = []
    for pair, one in _json(evaluated / "comparison.json").items():
        lines += [f"**{pair.replace('_', ' ')}**: {' '.join(one['verdict'])}", ""]
    tags = client.get_run(parent).data.tags
    experiment = client.get_run(parent).info.experiment_id
    page = f"#/experiments/{experiment}/runs"
    lines.append(f"[report and tables]({page}/{parent}/artifacts)")
    stages = sorted(key for key in tags if key.startswith("run."))
    links = [f"[{key.removeprefix('run.')}]({page}/{tags[key]})" for key in stages]
    return "\n".join([*lines, "", "runs of the stages: " + ", ".join(links)])


def _log_tables(client: MlflowClient, parent: str, evaluated: Path, data: Manifest) -> None:
    """Per class, and the surest mistakes with their images."""
    scores = _json(evaluated / "per_class.json")
    by_class: dict[str, list[Any]] = {"class": list(scores)}
    for key in next(iter(scores.values()), {}):
        by_class[key] = [scores[label][key] for label in scores]
    client.log_table(parent, by_class, "tables/per_class.json")
    mistakes = surest_mistakes(evaluated)
    if not mistakes:
        return
    rows = {row.path: place for place, row in enumerate(data.rows)}
    images = [Image.fromarray(np.asarray(data.images[rows[one["path"]]])) for one in mistakes]
    table: dict[str, list[Any]] = {"image": images}
    for key in ("path", "label", "predicted", "probability", "known"):
        table[key] = [one[key] for one in mistakes]
    client.log_table(parent, table, "tables/mistakes.json")


def surest_mistakes(evaluated: Path) -> list[dict[str, Any]]:
    """The wrongly classified images, the surest first.

    Args:
        evaluated: Output of evaluate.
    """
    from pyarrow import compute, parquet

    wrong: list[dict[str, Any]] = []
    for batch in parquet.ParquetFile(evaluated / predictions.FILE).iter_batches(_ROWS):
        mistaken = compute.not_equal(batch.column("label"), batch.column("predicted"))
        for one in batch.filter(mistaken).to_pylist():
            wrong.append({**one, "probability": float(max(one.pop("probabilities")))})
        wrong = sorted(wrong, key=lambda one: -one["probability"])[:_MISTAKES]
    return wrong


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
