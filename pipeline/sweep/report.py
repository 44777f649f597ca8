"""The report of a sweep: a table, a verdict, plots, and the winner as a params.yaml.

study -> best.yaml, trials.csv, report.html (works offline); with several objectives also
front/trial_N.yaml for each trial on the Pareto front.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from io import StringIO
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML

from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import digits
from pipeline.errors import redacted
from pipeline.storage import digests, outputs, tables
from pipeline.storage.outputs import PARAMS
from pipeline.sweep import objectives, plots, sharing, soup, space

_COLUMNS = (
    "trial",
    "state",
    "val_score",
    "val_loss",
    "val_accuracy",
    "val_r2",
    "ms_per_image",
    "parameters",
    "best_epoch",
    "seconds",
    "cache_hits",
)

_BEST, _FRONT = "best.yaml", "front"
_HEADER = "# Found by a sweep:"


@dataclass(frozen=True)
class Result:
    """Result of a sweep.

    Attributes:
        text: Verdict and next step, for people.
        metrics: Metrics for the tracker.
    """

    text: str
    metrics: dict[str, float]


def named(trial: FrozenTrial) -> str:
    """Describe a trial by its settings."""
    return space.named(trial.user_attrs.get("settings", {})) or "not started"


def write(opened: Study, config: Config, words: list[str], folder: Path) -> Result:
    """Write all files, replacing earlier ones."""
    trials = sharing.finished(opened.get_trials(deepcopy=False))
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    counts = {
        "trials": len(trials),
        "trials_pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "trials_failed": sum(trial.state == TrialState.FAIL for trial in trials),
    }
    _write_table(trials, folder / "trials.csv")
    if not done:
        return Result(f"no trial was completed; {_counted(counts)}", dict(counts))
    names = config.sweep.objectives
    best = min(done, key=lambda trial: objectives.order(names, trial))
    verdict, metrics = _verdict(done, best)
    averaged, quality = soup.result(opened, names), objectives.quality(best.user_attrs)
    added: list[FrozenTrial] = []
    if averaged:
        numbers = ", ".join(map(str, averaged["used"]))
        better = averaged["val_score"] < _score(best)
        metrics["soup_val_score"] = averaged["val_score"]
        if better:
            ordered = {trial.number: trial for trial in done}
            best, *added = (ordered[number] for number in averaged["used"])
        verdict += (
            f"\naveraging the weights of trials {numbers} is better: val_score "
            f"{digits(averaged['val_score'])}, {quality} {digits(averaged[quality])}; best.yaml "
            "does this"
            if better
            else "\naveraging the weights of the best trials did not improve the score"
        )
    winner = _Winner(config, words, opened.study_name)
    winner.write(folder / _BEST, _BEST, best, added)
    front = sorted(opened.best_trials, key=lambda trial: trial.number) if len(names) > 1 else []
    if front:
        verdict += f"\n{_front(front, winner, folder / _FRONT)}"
    verdict += f"\n{objectives.outlook(opened)}"
    cuts = opened.user_attrs["cuts"]
    pages = plots.draw(opened, trials, cuts, names)
    columns = [
        c for c in _COLUMNS if c in ("trial", "state") or any(c in t.user_attrs for t in done)
    ]
    outputs.write_page(
        folder / "report.html",
        Path(__file__).with_name("templates") / "report.html",
        title=f"Sweep {opened.study_name}",
        verdict=verdict,
        counts=_counted(counts),
        columns=("settings", *columns),
        rows=_rows(trials, columns, names, front),
        front=bool(front),
        plots=pages,
    )
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    adopt = f"next: cp {near}/best.yaml params.yaml && dvc repro"
    text = f"{_counted(counts)}\n{verdict}\nreport: {near}/report.html\n{adopt}"
    return Result(text, {**counts, **metrics})


def _front(front: list[FrozenTrial], winner: _Winner, folder: Path) -> str:
    """Write each trial of the Pareto front as a params.yaml; returns a description."""
    names = winner.config.sweep.objectives
    with outputs.replacing(folder) as aside:
        for trial in front:
            file = f"trial_{trial.number}.yaml"
            winner.write(aside / file, f"{_FRONT}/{file}", trial, [])
    lines = [f"Pareto front for {', '.join(names)} ({_FRONT}/trial_N.yaml):"]
    for trial in sorted(front, key=lambda trial: objectives.order(names, trial)):
        values = ", ".join(f"{name} {trial.user_attrs[name]:.4g}" for name in names)
        lines.append(f"  trial {trial.number}: {named(trial)}: {values}")
    return "\n".join(lines)


def _verdict(done: list[FrozenTrial], best: FrozenTrial) -> tuple[str, dict[str, float]]:
    """Say whether fine-tuning was worth it, in words and numbers."""
    images = len(Manifest(outputs.ROOT / "prepare").indices("val"))
    quality = objectives.quality(best.user_attrs)
    reached = float(best.user_attrs[quality])
    metrics = {"best_val_score": _score(best), f"best_{quality}": reached}
    head = [trial for trial in done if trial.user_attrs["settings"]["finetune.cut"] == space.NONE]
    if not head:
        return (
            f"best: {named(best)}, val_score {digits(_score(best))}; head only did not run",
            metrics,
        )
    # If the head varies, fine-tuning must beat the best of them.
    alone = min(head, key=_score)
    metrics["head_only_val_score"] = _score(alone)
    before = metrics[f"head_only_{quality}"] = float(alone.user_attrs[quality])
    scores = (
        f"head only: val_score {digits(_score(alone))}, {quality} {digits(before)}; "
        f"best: {named(best)} (trial {best.number}): val_score {digits(_score(best))}, "
        f"{quality} {digits(reached)}"
    )
    if _score(best) >= _score(alone):
        return f"{scores}\nfine-tuning did not improve the validation score", metrics
    lower = 1 - _score(best) / _score(alone)
    improvement = f"fine-tuning improved the validation score by {lower:.0%}"
    if quality != "val_accuracy":
        return f"{scores}\n{improvement}", metrics
    more = round((reached - before) * images)
    words = f"{abs(more)} {'more' if more >= 0 else 'fewer'} of {images} validation images"
    improvement += f" and classified {words} correctly"
    doubt = "; such a small difference may be chance" if more < 3 else ""
    return f"{scores}\n{improvement}{doubt}", metrics


def _score(trial: FrozenTrial) -> float:
    return float(trial.user_attrs["val_score"])


def _counted(counts: dict[str, int]) -> str:
    pruned, failed = counts["trials_pruned"], counts["trials_failed"]
    return f"{counts['trials']} trials, {pruned} of them pruned, {failed} failed"


def _rows(
    trials: list[FrozenTrial], columns: list[str], names: list[str], front: list[FrozenTrial]
) -> list[list[str]]:
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    others = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    numbers = {trial.number for trial in front}
    rows = []
    for trial in [*sorted(done, key=lambda t: objectives.order(names, t)), *others]:
        values = {"trial": trial.number, "state": trial.state.name.lower(), **trial.user_attrs}
        cells = [values.get(name, "") for name in columns]
        texts = [f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in cells]
        mark = "* " if trial.number in numbers else ""
        rows.append([f"{mark}{named(trial)}", *texts])
    return rows


def _write_table(trials: list[FrozenTrial], path: Path) -> None:
    keys = sorted({key for trial in trials for key in trial.user_attrs.get("settings", {})})
    table = []
    for trial in sorted(trials, key=lambda trial: trial.number):
        values = {"trial": trial.number, "state": trial.state.name.lower(), **trial.user_attrs}
        settings = trial.user_attrs.get("settings", {})
        cells = [values.get(name, "") for name in _COLUMNS]
        table.append([*cells, *(settings.get(key, "") for key in keys)])
    with outputs.replacing_file(path) as aside:
        tables.write_table(aside, (*_COLUMNS, *keys), table)


@dataclass(frozen=True)
class _Winner:
    """Writes trials as a params.yaml."""

    config: Config
    words: list[str]
    study: str

    def write(self, path: Path, file: str, best: FrozenTrial, added: list[FrozenTrial]) -> None:
        """Write params.yaml with a trial's settings, keeping its comments."""
        yaml = YAML()
        yaml.preserve_quotes = True
        text = PARAMS.read_text(encoding="utf-8")
        if text.startswith(_HEADER):  # an adopted winner
            text = text.partition("\n#\n")[2]
        params = yaml.load(text)
        changed = [key for word in self.words if (key := _full_name(word))]
        settings = {key: space.setting(self.config, key) for key in changed}
        averaged = {"finetune.soup": soup.recipe([best, *added])} if added else {}
        for key, value in {**settings, **best.user_attrs["settings"], **averaged}.items():
            section = params
            *sections, name = key.split(".")
            for part in sections:
                section = section.setdefault(part, {})
            section[name] = value.value if isinstance(value, Enum) else value
        dumped = StringIO()
        yaml.dump(params, dumped)
        adopted = redacted(dumped.getvalue())
        hidden = "" if adopted == dumped.getvalue() else _HIDDEN
        with outputs.replacing_file(path) as aside:
            aside.write_text(self._header(file, best) + hidden + adopted, encoding="utf-8")

    def _header(self, file: str, best: FrozenTrial) -> str:
        same_code = best.user_attrs["code"] == digests.code_sha256()
        stale = "" if same_code else "# It was scored by other code: dvc repro may differ.\n"
        words, quality = map(redacted, self.words), objectives.quality(best.user_attrs)
        return (
            f"{_HEADER} {named(best)}: val_score {_score(best)!r}, "
            f"{quality} {best.user_attrs[quality]!r}\n"
            f"# trial {best.number} of {self.study}\n"
            f"#   {shlex.join(['python', '-m', 'pipeline', 'sweep', *words])}\n{stale}"
            f"# To adopt it: cp sweeps/{self.study}/{file} params.yaml && dvc repro\n#\n"
        )


_HIDDEN = "# Passwords are hidden: set them again, or use ${oc.env:NAME} in params.yaml.\n"


def _full_name(word: str) -> str:
    """Return the setting that a word of the command line changes, if it affects results."""
    key = word.lstrip("+~").partition("=")[0]
    return key if key.startswith(("finetune.", "train_head.", "head.")) else ""
