"""Share the trials of a study among processes: none lost, none counted twice.

A worker that dies leaves its trial RUNNING: another one on this machine requeues it at once, one on
another machine restarts it when its heartbeats are missing. `_storage` and `_trial_id`: Optuna has
no public way to change a trial that another process ran.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study, Trial
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from pipeline.errors import Stopped
from pipeline.sweep import objectives
from pipeline.sweep.study import folder
from pipeline.tracking import processes

DEATHS = 3
"""A trial whose process is killed this often is given up: most likely for lack of memory."""

Objective = Callable[[Trial], tuple[float, ...]]


class Surplus(Exception):
    """A trial too many: two machines queued or started one at the same moment."""


class TakenOver(BaseException):
    """A trial taken over by another machine, because this one slept and missed its heartbeats.

    Not an Exception: Optuna would end the trial, which has already ended.
    """


def lock_of(name: str) -> FileLock:
    """Return the lock that a worker of this machine holds while it takes a trial."""
    return FileLock(folder() / f".{name}.lock")


def add_once(
    study: Study, params: dict[str, Any], kind: str, identifying: tuple[str, ...] = ()
) -> None:
    """Queue a trial with fixed parameters unless the study has it, in any state.

    `identifying` names the parameters that identify it; all if empty.
    """
    for trial in study.get_trials(deepcopy=False):
        there = _fixed(trial) or trial.params
        same = all(there.get(name) == params[name] for name in identifying or params)
        if same and not _died(trial):
            return
    study.enqueue_trial(params, user_attrs={"kind": kind})


def run_trials(study: Study, objective: Objective, total: int, patience: int | None = None) -> None:
    """Run trials until `total` have finished; wait for those that others run.

    Exceptions of the objective fail the trial, not the sweep. `patience` is the number of trials
    without progress after which to stop; None for never.
    """
    lock = lock_of(study.study_name)
    while True:
        with lock:
            put_back(study)
            if not _is_local(study):
                # Optuna only checks when it starts a trial; the missing one may be the last.
                optuna.storages.fail_stale_trials(study)
            trials = study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            enough = patience is not None and objectives.without_progress(study) >= patience
            if len(finished(trials)) + len(running) < total and (waiting or not enough):
                # Held until the trial records its process.
                mine = _owned(objective, study, lock, total)
                try:
                    study.optimize(mine, n_trials=1, catch=(Exception,))
                except TakenOver as taken:
                    print(taken, flush=True)
                continue
        if not running:
            return
        time.sleep(0.5)


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Select complete and pruned trials, and those that failed by their own fault."""
    return [trial for trial in trials if trial.state.is_finished() and not _died(trial)]


def put_back(study: Study) -> None:
    """Requeue trials whose process on this machine is gone, with their parameters."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get("process", {})
        if owner.get("since") != str(trial.datetime_start):  # its previous owner
            # Killed before it could record its process, or just started on another machine.
            started = trial.datetime_start or datetime.now()
            if (datetime.now() - started).total_seconds() < 60 and not _is_local(study):
                continue
        elif not processes.dead(owner):
            continue
        with suppress(UpdateFinishedTrialError):  # another machine ended it in this moment
            _died_once_more(study, trial)


def _died_once_more(study: Study, trial: FrozenTrial) -> None:
    deaths = trial.user_attrs.get("deaths", 0) + 1
    study._storage.set_trial_user_attr(trial._trial_id, "deaths", deaths)
    if deaths < DEATHS:
        requeue(study, trial._trial_id)
        return
    reason = f"its process was killed {deaths} times: too little memory?"
    study._storage.set_trial_user_attr(trial._trial_id, "error", reason)
    study.tell(trial.number, state=TrialState.FAIL)


def requeue(study: Study, trial_id: int) -> None:
    """Let another worker run a trial, with the same parameters."""
    storage: Any = study._storage
    storage.record_heartbeat(trial_id)  # otherwise it would count as missing at once
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _is_local(study: Study) -> bool:
    storage: Any = study._storage  # Optuna's cache before a database
    return bool(storage._backend.url.startswith("sqlite"))


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters that a trial was queued with."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def _died(trial: FrozenTrial) -> bool:
    """Check if a trial ended with its process, or was surplus."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def _owned(objective: Objective, study: Study, lock: FileLock, total: int) -> Objective:
    """Wrap the objective: record its process and errors."""

    def owned(trial: Trial) -> tuple[float, ...]:
        try:
            since = {"since": str(trial.datetime_start)}
            trial.set_user_attr("process", processes.identity() | since)
            every = study.get_trials(deepcopy=False)
            lock.release()
            try:
                with _given_up_if_ended(study, trial):
                    if _surplus(every, trial.number, total):
                        raise Surplus
                    return objective(trial)
            finally:
                lock.acquire()  # its holder releases it
        except Stopped as stopped:
            raise optuna.TrialPruned(str(stopped)) from stopped
        except Surplus:
            raise
        except Exception:
            trial.set_user_attr("error", traceback.format_exc())
            raise
        except SystemExit:
            with suppress(UpdateFinishedTrialError):
                requeue(study, trial._trial_id)
            raise

    return owned


def _surplus(trials: list[FrozenTrial], number: int, total: int) -> bool:
    """Check if enough trials, or an identical queued one, started before this one."""
    before = [t for t in trials if t.number < number and t.state != TrialState.WAITING]
    before = [t for t in before if not _died(t)]
    (own,) = [_fixed(t) for t in trials if t.number == number]
    return len(before) >= total or any(own and _fixed(t) == own for t in before)


@contextmanager
def _given_up_if_ended(study: Study, trial: Trial) -> Iterator[None]:
    """Discard the result of a trial that has ended elsewhere meanwhile."""
    failed = None
    try:
        yield
    except Exception as error:
        failed = error
    if study.get_trials(deepcopy=False)[trial.number].state.is_finished():
        message = f"trial {trial.number} was taken over by another machine while this one slept"
        raise TakenOver(message) from failed
    if failed:
        raise failed
