"""Write outputs/report.html, one self-contained page that works offline.

The last stage of dvc.yaml. It depends on settings and outputs only, so it always matches the
outputs beside it; commits and timings are in MLflow.

    python -m pipeline report
"""

import base64
from collections import Counter
from pathlib import Path

from omegaconf import OmegaConf

from pipeline.config import Config
from pipeline.data.manifest import CALIBRATION, SPLITS, Manifest
from pipeline.data.tasks import lower_is_better
from pipeline.data.tasks.facts import MAX_AREA_VALUES
from pipeline.errors import InputError, redacted
from pipeline.evaluation import (
    feature_map,
    label_errors,
    near_duplicates,
    plots,
    resampling,
    summary,
    trust,
)
from pipeline.storage import derived, tables
from pipeline.storage.digests import digest
from pipeline.storage.outputs import ROOT, STAGES, write_page
from pipeline.tracking import provenance

PATH = ROOT / "report.html"

_MODELS = ("constant", "head_only", "fine_tuned")
_VERSIONS = ("tensorflow", "keras", "openvino", "numpy", "scikit-learn", "mlflow", "dvc", "optuna")


def run(config: Config) -> None:
    """Write and log the page for the current outputs.

    Raises:
        InputError: A stage has no output yet.
    """
    from pipeline.tracking import runs

    _write(config)
    runs.attach(config, PATH)
    data = Manifest(ROOT / "prepare")
    print(summary.headline(ROOT / "evaluate", data))
    print(f"report: {PATH}")
    print("next: python -m pipeline predict IMAGE ...")


def _write(config: Config) -> None:
    missing = [stage for stage in STAGES if not (ROOT / stage).is_dir()]
    if missing:
        raise InputError(
            f"the report needs the outputs of every stage, and {missing[0]} has none: run dvc repro"
        )
    evaluated, prepared = ROOT / "evaluate", ROOT / "prepare"
    data = Manifest(prepared)
    spread = tables.read_json(evaluated / "intervals.json")
    optional = {
        "near_duplicates": tables.read_records(evaluated / near_duplicates.FILE),
        "label_errors": tables.read_records(evaluated / label_errors.FILE),
    }
    intervals = {name: spread[name] for name in _MODELS if name in spread}
    drawn, names = plots.of(data.task), data.task.names
    totals = Counter(row.split for row in data.rows)
    splits = (*SPLITS, CALIBRATION) if totals[CALIBRATION] else SPLITS
    cut = derived.value(ROOT / "finetune", "finetune.cut", config.finetune.cut)
    tuned = tables.read_json(ROOT / "finetune" / "summary.json")
    recipe = summary.recipe(config.backbone.use, config.head.use, str(cut), tuned)
    write_page(
        PATH,
        Path(__file__).with_name("templates") / "report.html",
        title=config.data.title,
        headline=summary.headline(evaluated, data),
        summary=summary.sentences(evaluated, data, recipe),
        split=summary.split(evaluated, data),
        image_count=len(tables.read_records(evaluated / "predictions.csv")),
        classes=sorted({name for row in data.rows for name in names(row.label)}),
        noun=data.task.noun,
        comparisons=summary.compared(evaluated),
        intervals=intervals,
        metrics=list(intervals["fine_tuned"]),
        lower_is_better=list(filter(lower_is_better, intervals["fine_tuned"])),
        draws=resampling.DRAWS,
        areas_most=MAX_AREA_VALUES,
        sliced=resampling.sliced(data.task),
        slices=tables.read_records(evaluated / "slices.csv"),
        plots=[(name, plot.title) for name, plot in drawn.items() if optional.get(name, True)],
        encoded={name: _encoded(evaluated / "plots" / f"{name}.png") for name in drawn},
        splits=splits,
        counts=Counter((name, row.split) for row in data.rows for name in names(row.label)),
        totals=totals,
        near_duplicates=optional["near_duplicates"],
        suspects=optional["label_errors"],
        trusted=trust.sentences(tables.read_json(evaluated / trust.FILE), data.task),
        map=feature_map.draw(evaluated, data),
        map_width=feature_map.WIDTH,
        map_height=feature_map.HEIGHT,
        duplicates=sum(row.verdict == "duplicate" for row in data.rows),
        quarantine=tables.read_records(prepared / "quarantine.csv"),
        lineage=_lineage(),
        derived={n: v for stage in STAGES for n, v in derived.read(ROOT / stage).items()},
        config=redacted(OmegaConf.to_yaml(OmegaConf.create(config.essentials()))),
    )


def _lineage() -> dict[str, str]:
    """Name the exact outputs and versions behind the page."""
    made = {f"outputs/{stage} (as in dvc.lock)": digest(ROOT / stage) for stage in STAGES}
    return {**made, "versions": ", ".join(provenance.versions(*_VERSIONS))}


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
