"""Tell experiments apart: the settings in which they differ, and their metrics with intervals.

Experiments that differ by the seed alone are one row, with mean and spread. Those that were
judged on the same test images are compared with the first row by a paired test.

    python -m pipeline compare
"""

import argparse
import statistics
from collections.abc import Iterator

from pipeline.errors import InputError
from pipeline.sections import Tracking
from pipeline.tracking import experiments, store
from pipeline.tracking.experiments import Experiment

_METRICS = ("accuracy", "log_loss")
_SEED = "seed"
_WIDEST = 60


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiments."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="name or id of a parent run, or name of a DVC experiment; all if none is given",
    )


def run(tracking: Tracking, options: argparse.Namespace) -> None:
    """Print the table and the paired tests."""
    client = store.connect(tracking)
    with store.answering(tracking):
        evaluated = experiments.evaluated(client, store.experiment(client, tracking), options.runs)
        if not evaluated:
            raise InputError("there is no evaluated experiment to compare yet: run dvc repro")
        rows = _by_seed(evaluated)
        differing = _differing(evaluated)
        print(_table(rows, differing))
        for line in _paired(rows):
            print(line)


def _by_seed(found: list[Experiment]) -> list[list[Experiment]]:
    """Experiments whose settings are the same but for the seed, together."""
    rows: dict[tuple[tuple[str, str], ...], list[Experiment]] = {}
    for one in found:
        settings = tuple(sorted(item for item in one.settings.items() if item[0] != _SEED))
        rows.setdefault(settings, []).append(one)
    # Of states that differ in code alone, the newest stands for its seed.
    return [
        list({one.settings.get(_SEED): one for one in reversed(row)}.values())
        for row in rows.values()
    ]


def _differing(found: list[Experiment]) -> list[str]:
    """Settings that are not the same in all experiments, but for the seed."""
    names = sorted({name for one in found for name in one.settings} - {_SEED})
    return [name for name in names if len({one.settings.get(name) for one in found}) > 1]


def _table(rows: list[list[Experiment]], differing: list[str]) -> str:
    cells = [["run", *_METRICS, "images", *differing]]
    for row in rows:
        first = row[0]
        name = _named(first) if len(row) == 1 else f"{first.name} ({len(row)} seeds)"
        metrics = [_measured(row, metric) for metric in _METRICS]
        settings = [_shown(first.settings.get(setting, "-")) for setting in differing]
        cells.append([name, *metrics, str(len(first.judged.said.paths)), *settings])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(line.rstrip() for line in lines)


def _measured(row: list[Experiment], metric: str) -> str:
    """A metric with its interval; of several seeds, their mean and standard deviation."""
    values = [one.judged.intervals[metric] for one in row]
    if len(row) > 1:
        exact = [value["value"] for value in values]
        return f"{statistics.mean(exact):.4f} ± {statistics.stdev(exact):.4f}"
    low, high = values[0]["low"], values[0]["high"]
    shown = f"{values[0]['value']:.4f}"
    return shown if low is None else f"{shown} ({low:.4f} to {high:.4f})"


def _named(one: Experiment) -> str:
    return f"{one.name} ({one.run_id[:8]})"


def _shown(value: str) -> str:
    return value if len(value) <= _WIDEST else f"{value[: _WIDEST - 3]}..."


def _paired(rows: list[list[Experiment]]) -> Iterator[str]:
    from pipeline.evaluation import facts, resampling

    reference = rows[0][0]
    for row in rows[1:]:
        other = row[0]
        if not other.same_images(reference):
            yield f"{_named(other)}: judged on other images than the first, so not paired"
            continue
        first, second = (
            resampling.resample(
                facts.gather(one.judged.said.labels, one.judged.said.probabilities), 0
            )
            for one in (reference, other)
        )
        yield f"{_named(other)} against {_named(reference)}:"
        for sentence in resampling.compare(first, second).verdict:
            yield f"  {sentence}"
