"""Compare experiments: metrics with confidence intervals, and the settings that differ.

Runs that differ only in their seed share a row with mean and standard deviation. Experiments with
the same test images are compared with the first row by a paired test.

    python -m pipeline compare
"""

import argparse
import statistics
from collections.abc import Iterator
from textwrap import wrap

from pipeline.data.tasks import digits
from pipeline.errors import InputError
from pipeline.sections import Tracking
from pipeline.tracking import experiments, store
from pipeline.tracking.experiments import Experiment
from pipeline.tracking.parents import cut_off

_SEED = "seed"
_MAX_WIDTH = 120
_MAX_SETTINGS, _MAX_CELL, _MAX_NAME = 5, 60, 28


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiments and `--all`."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="name or ID of a parent run, or name of a DVC experiment (default: all)",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"show all differing settings, not {_MAX_SETTINGS}"
    )


def run(tracking: Tracking, options: argparse.Namespace) -> None:
    """Print the table and the paired comparisons."""
    client = store.connect(tracking)
    with store.answering(tracking):
        evaluated = experiments.evaluated(client, store.experiment(client, tracking), options.runs)
        if not evaluated:
            raise InputError("there is no evaluated experiment to compare: run dvc repro first")
        evaluated = _of_one_task(evaluated)
        rows = _by_seed(evaluated)
        differing = _differing(evaluated)
        for line in _table(rows, differing, options.all):
            print(line)
        for line in _paired(rows):
            print(line)


def _of_one_task(evaluated: list[Experiment]) -> list[Experiment]:
    """Drop experiments that predict something else than the first, and say so."""
    name = evaluated[0].judged.predictions.task.name
    same = [run for run in evaluated if run.judged.predictions.task.name == name]
    if len(same) < len(evaluated):
        print(f"{len(evaluated) - len(same)} experiments are left out: they are no {name}")
    return same


def _by_seed(evaluated: list[Experiment]) -> list[list[Experiment]]:
    """Group experiments whose settings differ only in the seed."""
    rows: dict[tuple[tuple[str, str], ...], list[Experiment]] = {}
    for experiment in evaluated:
        settings = tuple(sorted(item for item in experiment.settings.items() if item[0] != _SEED))
        rows.setdefault(settings, []).append(experiment)
    # If only the code differs, the newest run represents its seed.
    return [
        list({run.settings.get(_SEED): run for run in reversed(row)}.values())
        for row in rows.values()
    ]


def _differing(evaluated: list[Experiment]) -> list[str]:
    """List the settings that differ between experiments, except the seed."""
    names = sorted({name for run in evaluated for name in run.settings} - {_SEED})
    return [name for name in names if len({run.settings.get(name) for run in evaluated}) > 1]


def _table(rows: list[list[Experiment]], differing: list[str], every: bool) -> Iterator[str]:
    """Format rows of at most `_MAX_WIDTH` characters, unless every setting is requested."""
    columns = [["run", *map(_name, rows)]]
    metrics = rows[0][0].judged.predictions.task.headline
    columns += [[metric, *(_measured(row, metric) for row in rows)] for metric in metrics]
    columns += [["images", *(str(len(row[0].judged.predictions.paths)) for row in rows)]]
    hidden = []
    for setting in differing:
        values = [row[0].settings.get(setting, "-") for row in rows]
        column = [
            _title(setting, differing),
            *(v if every else cut_off(v, _MAX_CELL) for v in values),
        ]
        width = sum(max(map(len, cells)) + 2 for cells in (*columns, column)) - 2
        if every or (len(columns) < len(metrics) + 2 + _MAX_SETTINGS and width <= _MAX_WIDTH):
            columns.append(column)
        else:
            hidden.append(setting)
    widths = [max(map(len, column)) for column in columns]
    for cells in zip(*columns, strict=True):
        yield "  ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip()
    if hidden:
        yield f"{len(hidden)} more settings differ: add --all"


def _measured(row: list[Experiment], metric: str) -> str:
    """Format a metric with its interval or, for several seeds, mean and standard deviation."""
    values = [run.judged.intervals[metric] for run in row]
    if len(row) > 1:
        exact = [value["value"] for value in values]
        return f"{statistics.mean(exact):.4f} ± {statistics.stdev(exact):.4f}"
    low, high = values[0]["low"], values[0]["high"]
    text = digits(values[0]["value"])
    if low is None:
        return text
    return f"{text} ({digits(low, '.3f')}-{digits(high, '.3f')})"


def _title(setting: str, differing: list[str]) -> str:
    """Omit the section of a setting if its name alone is unique."""
    name = setting.rpartition(".")[2]
    same = [other for other in differing if other.rpartition(".")[2] == name]
    return name if len(same) == 1 else setting


def _name(row: list[Experiment]) -> str:
    which = f"{len(row)} seeds" if len(row) > 1 else row[0].run_id[:8]
    return f"{cut_off(row[0].name, _MAX_NAME)} ({which})"


def _named(run: Experiment) -> str:
    return f"{run.name} ({run.run_id[:8]})"


def _paired(rows: list[list[Experiment]]) -> Iterator[str]:
    from pipeline.evaluation import resampling

    reference = rows[0][0]
    task = reference.judged.predictions.task
    for row in rows[1:]:
        other = row[0]
        if not other.same_images(reference):
            yield f"{_named(other)}: evaluated on other images than the first, so not compared"
            continue
        first, second = (
            resampling.resample(run.judged.predictions.facts(), 0) for run in (reference, other)
        )
        names = (*task.headline, task.further[0])
        yield f"{_named(other)} compared with {_named(reference)}:"
        for sentence in resampling.compare(first, second, names).verdict:
            yield from wrap(sentence, _MAX_WIDTH, initial_indent="  ", subsequent_indent="    ")
