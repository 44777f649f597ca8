"""Start the workers of a sweep, show how far it is, and write down what it found.

Imports no TensorFlow: should a trial take all of the memory, this process lives on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from pipeline.data.manifest import Manifest
from pipeline.errors import InputError
from pipeline.finetuning import recipe
from pipeline.storage import outputs
from pipeline.sweep import networks, report, sharing, space, study
from pipeline.tracking import store
from pipeline.tracking.sweep_runs import Tracker

if TYPE_CHECKING:
    from pipeline.config import Config

_WORKER = "PIPELINE_SWEEP_STUDY"
# What the command line may set: prepare and extract_features read none of it.
_FREE = {"finetune", "train_head", "head", "sweep", "sampler", "pruner", "tracking", "activations"}
_RESTARTS = 10


def run(config: Config, words: list[str], compose: Callable[[list[str]], Config]) -> None:
    """Sweep, or be one of the workers of a sweep.

    Args:
        config: The whole config.
        words: The command line that it was composed with.
        compose: Command line -> whole config.

    Raises:
        InputError: Settings that no sweep can have, a pipeline that cannot run, or a
            database that is gone.
    """
    study_name = os.environ.get(_WORKER)
    try:
        if study_name:
            from pipeline.sweep import worker

            worker.run(config, words, compose, study_name)
        else:
            with store.answering(config.tracking):
                _supervise(config, words, compose)
    except StorageInternalError as error:
        cause = getattr(error.__cause__, "orig", None) or error.__cause__ or error
        reason = " ".join(str(cause).split())
        raise InputError(
            f"sweep.storage must answer until the sweep ends: {reason}; when it answers again, "
            "the same command goes on"
        ) from error


def _supervise(config: Config, words: list[str], compose: Callable[[list[str]], Config]) -> None:
    _check(config, words)
    _bring_up_to_date()
    prepared, features = outputs.ROOT / "prepare", outputs.ROOT / "extract_features"
    finetune, _ = recipe.derive_numbers(config.finetune, len(Manifest(prepared).indices("train")))
    varied = list(space.knobs(replace(config, finetune=finetune)))
    name = space.study_name(config, varied, prepared, features)
    folder = study.folder() / name
    folder.mkdir(exist_ok=True)
    # They import TensorFlow while this process opens the study and MLflow.
    with _Workers(config, words, name, folder) as workers:
        opened = study.open_study(config, name)
        tracker = Tracker(config, name)
        tracker.start(config.sweep.described())
        print(f"study {name}; what its workers say is in {folder}", flush=True)
        status = "KILLED"
        try:
            workers.watch(opened)
            status = "FINISHED"
        finally:
            result = report.write(opened, config, words, folder)
            tracker.finish(folder, result.metrics, status)
    print(result.text)


def _check(config: Config, words: list[str]) -> None:
    networks.others(config)
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key.partition(".")[0] not in _FREE:
            raise InputError(
                f"a sweep runs on what dvc repro makes from params.yaml, got {word}: edit "
                "params.yaml; the command line may set sweep, finetune, train_head and head"
            )
    for name, least in {"n_trials": 1, "workers": 1, "heartbeat_s": 1}.items():
        if getattr(config.sweep, name) < least:
            raise InputError(
                f"sweep.{name} must be at least {least}, got {getattr(config.sweep, name)}"
            )


def _bring_up_to_date() -> None:
    study.folder().mkdir(parents=True, exist_ok=True)
    with FileLock(study.folder() / ".repro.lock"):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "--quiet", "extract_features"], check=False
        )
    if done.returncode:
        raise InputError(
            "a sweep needs the outputs of prepare and extract_features, and they cannot be made: "
            "run `dvc repro extract_features` to see why"
        )


class _Workers:
    """The processes that run the trials; one that is killed is replaced."""

    def __init__(self, config: Config, words: list[str], name: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "pipeline", "sweep", *words]
        self._environment = {**os.environ, _WORKER: name}
        self._folder, self._config = folder, config
        self._restarts = 0
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> _Workers:
        for number in range(self._config.sweep.workers):
            self._start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running.values():
            child.terminate()
        for child in self._running.values():
            child.wait()

    def watch(self, opened: Study) -> None:
        """Wait until the workers have run all trials.

        Raises:
            InputError: A worker stopped with an error that is no trial's.
        """
        progress = _Progress(opened, self._config.sweep.n_trials)
        announced = False
        try:
            while self._running:
                time.sleep(0.2)
                progress.update()
                if progress.ended and self._config.sweep.soup and not announced:
                    announced = True
                    tqdm.write("all trials have ended: trying the average of the best ones")
                for number, child in list(self._running.items()):
                    if child.poll() is None:
                        continue
                    del self._running[number]
                    if child.returncode:
                        self._check(number, child.returncode)
                        self._start(number)
        finally:
            progress.close()

    def _start(self, number: int) -> None:
        with self._log(number).open("ab") as log:
            self._running[number] = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    def _check(self, number: int, code: int) -> None:
        """A worker that was killed is replaced; one that gave up tells why."""
        log = self._log(number)
        self._restarts += 1
        if code < 0 and self._restarts <= _RESTARTS:
            name = signal.Signals(-code).name
            tqdm.write(f"worker {number} was killed ({name}): another one takes up its trial")
            return
        lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise InputError(f"{lines[-1].removeprefix('error: ')} (worker {number}, {log})")

    def _log(self, number: int) -> Path:
        return self._folder / f"worker-{number}.log"


class _Progress:
    """A line a trial that has ended, and a bar: how many, pruned, best, time left."""

    def __init__(self, opened: Study, total: int) -> None:
        self._study, self._total = opened, total
        self._told = {trial.number for trial in sharing.finished(opened.get_trials(deepcopy=False))}
        self._bar = tqdm(total=total, initial=len(self._told), unit="trial", disable=None)

    def update(self) -> None:
        trials = sharing.finished(self._study.get_trials(deepcopy=False))
        for trial in trials:
            if trial.number not in self._told:
                self._told.add(trial.number)
                tqdm.write(_line(trial))
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
        self._bar.n = len(trials)
        if done:
            best = min(done, key=lambda trial: trial.value or 0.0)
            state = f"{pruned} pruned, best {best.value:.4f} ({report.named(best)})"
            self._bar.set_postfix_str(state, refresh=False)
        self._bar.refresh()

    @property
    def ended(self) -> bool:
        """Whether all trials have."""
        return int(self._bar.n) >= self._total

    def close(self) -> None:
        self.update()
        self._bar.close()


def _line(trial: FrozenTrial) -> str:
    begin = f"trial {trial.number}: {report.named(trial)}: "
    if trial.state == TrialState.COMPLETE:
        attrs = trial.user_attrs
        return begin + (
            f"val_score {trial.value:.4f}, val_accuracy {attrs['val_accuracy']:.3f}, "
            f"{attrs['seconds']:.1f} s"
        )
    if trial.state == TrialState.PRUNED:
        return begin + f"pruned after epoch {max(trial.intermediate_values)}"
    return begin + f"FAILED: {trial.user_attrs['error'].strip().splitlines()[-1]}"
