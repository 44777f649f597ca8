"""Start the workers of a sweep, show progress, and write the report.

Has no TensorFlow import: if a trial uses up the memory, this process survives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from pipeline.cluster.connection import connected
from pipeline.cluster.nodes import Nodes, Process
from pipeline.config import Config
from pipeline.data.manifest import Manifest
from pipeline.data.tasks import digits
from pipeline.errors import InputError, redacted
from pipeline.finetuning import recipe
from pipeline.sections import Pruner
from pipeline.storage import addresses, outputs
from pipeline.sweep import folds, networks, objectives, report, sharing, space, study
from pipeline.sweep.study import TOTAL
from pipeline.tracking import store
from pipeline.tracking.sweep_runs import Tracker

_WORKER = "PIPELINE_SWEEP_STUDY"
# Settings for the command line: prepare and extract_features do not read them.
_FREE = {"finetune", "train_head", "head", "sweep", "tracking", "activations", "cluster"}
_RESTARTS = 10


def run(config: Config, words: list[str], compose: Callable[[list[str]], Config]) -> None:
    """Run a sweep, or one of its workers.

    Raises:
        InputError: Invalid settings for a sweep, a pipeline that cannot run, or a database that
            stopped answering.
    """
    study_name = os.environ.get(_WORKER)
    try:
        if study_name:
            from pipeline.sweep import worker

            worker.run(config, words, compose, study_name)
        else:
            with store.answering(config.tracking):
                _supervise(config, words)
    except StorageInternalError as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise InputError(
            f"the database in sweep.storage stopped answering: {reason}; run the same command "
            "again when it answers"
        ) from error


def _supervise(config: Config, words: list[str]) -> None:
    _check(config, words)
    _bring_up_to_date()
    prepared, features = outputs.ROOT / "prepare", outputs.ROOT / "extract_features"
    data = Manifest(prepared)
    objectives.insist(config.sweep.objectives, data.task.quality)
    count, rate = len(data.indices("train")), data.task.rate
    finetune, _ = recipe.derive_numbers(config.finetune, count, rate)
    prepare = replace(config.prepare, image_size=data.image_size)
    varied = list(space.knobs(replace(config, finetune=finetune, prepare=prepare)))
    name = space.study_name(config, varied, prepared, features)
    folder = study.folder() / name
    folder.mkdir(exist_ok=True)
    # They import TensorFlow while this process opens the study and MLflow.
    with _Workers(config, words, name, folder) as workers:
        opened = study.open_study(config.sweep, config.seed, name)
        tracker = Tracker(config, name)
        tracker.start({**asdict(config.sweep), "storage": addresses.public(config.sweep.storage)})
        print(f"study {name}; logs of its workers are in {folder}", flush=True)
        with tracker.ending():
            try:
                workers.watch(opened)
            finally:
                result = report.write(opened, config, words, folder)
                tracker.log(folder, result.metrics)
    print(result.text)


def _check(config: Config, words: list[str]) -> None:
    networks.others(config)
    objectives.check(config.sweep.objectives)
    folds.check(config.sweep.folds, getattr(config.data, "group", None))
    if config.sweep.pruner == Pruner.wilcoxon and config.sweep.folds < 2:
        raise InputError(
            "sweep.pruner=wilcoxon compares trials by fold, got sweep.folds="
            f"{config.sweep.folds}: set sweep.folds=5"
        )
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in _FREE:
            raise InputError(
                f"a sweep uses the outputs of dvc repro with params.yaml, so {word} must be set "
                "there; the command line can set sweep, finetune, train_head and head"
            )


def _bring_up_to_date() -> None:
    with sharing.lock_of("repro"):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--quiet", "extract_features"], check=False
        )
    if done.returncode:
        raise InputError(
            "a sweep needs the outputs of prepare and extract_features, which failed: run `dvc "
            "repro extract_features` to see why"
        )


class _Workers:
    """The processes that run the trials, here or on every node of a cluster.

    A killed one is replaced, unless its node is gone, too.
    """

    def __init__(self, config: Config, words: list[str], name: str, folder: Path) -> None:
        self._own = {_WORKER: name}
        self._words = ["-m", "pipeline", "sweep", *map(self._without_secrets, words)]
        self._folder, self._config = folder, config
        self._restarts = 0
        self._nodes: Nodes | None = None
        self._exits = ExitStack()
        self._running: dict[int, subprocess.Popen[bytes] | Process] = {}

    def _without_secrets(self, word: str) -> str:
        """Move secrets of a word to the environment, because any process list shows arguments."""
        if redacted(word) == word:
            return word
        key, _, value = word.partition("=")
        name = f"{_WORKER}_{len(self._own)}"
        self._own[name] = value.strip("'\"")
        return f"{key}=${{oc.env:{name}}}"

    def __enter__(self) -> _Workers:
        total = self._config.sweep.workers
        if self._config.cluster.on:
            self._nodes = Nodes(self._exits.enter_context(connected(self._config.cluster)))
            hosts = self._nodes.alive
            machines, storage = len(set(hosts.values())), self._config.sweep.storage
            if machines > 1 and not storage.startswith("postgresql"):
                raise InputError(
                    f"a sweep on {machines} machines needs a database that all of them can reach, "
                    f"got sweep.storage={addresses.public(storage)}: set postgresql+psycopg://..."
                )
            total *= len(hosts)
        for number in range(total):
            self._start(number)
        return self

    def __exit__(self, *error: object) -> None:
        for child in self._running.values():
            child.terminate()
        for child in self._running.values():
            child.wait()
        self._exits.close()

    def watch(self, opened: Study) -> None:
        """Wait until the workers have run all trials.

        Raises:
            InputError: A worker stopped with an error of its own, or no node is left.
        """
        sweep = self._config.sweep
        progress = _Progress(opened, sweep.n_trials, sweep.objectives)
        announced = False
        ended = False
        try:
            while self._running:
                time.sleep(0.2)
                progress.update()
                if progress.ended and self._config.sweep.soup and not announced:
                    announced = True
                    tqdm.write("all trials have ended: averaging the best ones")
                for number, child in list(self._running.items()):
                    code = child.poll()
                    if code is None:
                        continue
                    del self._running[number]
                    ended = ended or code == 0
                    if code:
                        self._check(number, code, child)
                        self._start(number)
        finally:
            progress.close()
        if not ended:
            raise InputError(
                "all nodes of the cluster are gone: start some, and run the same command again"
            )

    def _start(self, number: int) -> None:
        log = self._log(number)
        if self._nodes is None:
            with log.open("ab") as file:
                self._running[number] = subprocess.Popen(
                    [sys.executable, *self._words],
                    env={**os.environ, **self._own},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            return
        busy = Counter(c.node for c in self._running.values() if isinstance(c, Process))
        free = [node for node in self._nodes.alive if busy[node] < self._config.sweep.workers]
        if not free:  # its node is gone
            return
        node = min(free, key=lambda node: busy[node])
        self._running[number] = self._nodes.start(node, self._words, self._own, log)

    def _check(self, number: int, code: int, child: subprocess.Popen[bytes] | Process) -> None:
        """Replace a killed worker; stop with the error of one that gave up."""
        log = self._log(number)
        self._restarts += 1
        if code < 0 and self._restarts <= _RESTARTS:
            name = signal.Signals(-code).name
            tqdm.write(f"worker {number} was killed ({name}): another one takes over its trial")
            return
        text = child.output() if isinstance(child, Process) else log.read_text(errors="replace")
        lines = text.strip().splitlines() or ["no output"]
        raise InputError(f"{lines[-1].removeprefix('error: ')} (worker {number}, {log})")

    def _log(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"


class _Progress:
    """Print a line for each finished trial, and a bar: count, pruned, best, time left."""

    def __init__(self, opened: Study, total: int, names: list[str]) -> None:
        self._study, self._names = opened, names
        self._printed = {
            trial.number for trial in sharing.finished(opened.get_trials(deepcopy=False))
        }
        self._bar = tqdm(total=total, initial=len(self._printed), unit="trial", disable=None)

    def update(self) -> None:
        trials = sharing.finished(self._study.get_trials(deepcopy=False))
        for trial in trials:
            if trial.number not in self._printed:
                self._printed.add(trial.number)
                tqdm.write(_line(trial))
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        self._bar.total = self._study.user_attrs.get(TOTAL, self._bar.total)
        self._bar.n = len(trials)
        if done:
            best = min(done, key=lambda trial: objectives.order(self._names, trial))
            value = best.user_attrs[self._names[0]]
            state = f"{pruned} pruned, best {digits(value)} ({report.named(best)})"
            self._bar.set_postfix_str(state, refresh=False)
        self._bar.refresh()

    @property
    def ended(self) -> bool:
        """True if all trials have ended."""
        return bool(self._bar.n >= (self._bar.total or 0))

    def close(self) -> None:
        self.update()
        self._bar.close()


def _line(trial: FrozenTrial) -> str:
    begin = f"trial {trial.number}: {report.named(trial)}: "
    if trial.state == TrialState.COMPLETE:
        attrs, name = trial.user_attrs, objectives.quality(trial.user_attrs)
        return begin + (
            f"val_score {digits(attrs['val_score'])}, {name} {attrs[name]:.3f}, "
            + (f"{attrs['ms_per_image']:.2f} ms/image, " if "ms_per_image" in attrs else "")
            + f"{attrs['seconds']:.1f} s"
        )
    if trial.state == TrialState.PRUNED:
        return begin + f"pruned after epoch or fold {max(trial.intermediate_values)}"
    return begin + f"FAILED: {trial.user_attrs['error'].strip().splitlines()[-1]}"
