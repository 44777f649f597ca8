"""The trials of a sweep, kept in a database or a file that several workers share.

A worker that dies leaves its trial RUNNING: another one of this machine puts it back as
it was, at once; one of another machine starts it again when its heartbeats are missing.
"""

from __future__ import annotations

import hashlib
import logging
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study, Trial
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError, ProgrammingError

from pipeline import processes, workspace
from pipeline.errors import InputError, Stopped
from pipeline.sweep.settings import Config, Pruner, Sampler

DEATHS = 3
"""A trial whose process is killed this often is given up: most likely for lack of memory."""

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("optuna").addFilter(lambda record: "failed with" not in record.getMessage())

Objective = Callable[[Trial], float]


class Surplus(Exception):
    """A trial too many: two machines queued or started one in the same moment."""


def folder() -> Path:
    """Where the results of all sweeps are."""
    return workspace.root() / "sweeps"


def lock_of(name: str) -> FileLock:
    """Held by a worker of this machine while it takes a trial."""
    return FileLock(folder() / f".{name}.lock")


def open_study(config: Any, name: str, avoid: int | None = None) -> Study:
    """Open a study, which is made if it is not there.

    Args:
        config: The whole config.
        name: Of the study.
        avoid: Value of the parameter `cut` that is not drawn: head only is tried once.

    Raises:
        InputError: The storage cannot be reached, or Optuna has no such sampler or pruner.
    """
    folder().mkdir(parents=True, exist_ok=True)
    # Two processes that make the tables at once would break them.
    with FileLock(folder() / ".storage.lock"):
        return optuna.create_study(
            study_name=name,
            storage=_storage(config.sweep),
            sampler=_Seeded(config.sampler, config.seed, avoid),
            pruner=_made(optuna.pruners, "pruner", config.pruner, {}),
            load_if_exists=True,
        )


def _storage(config: Config) -> BaseStorage:
    if config.storage == "journal":
        return JournalStorage(JournalFileBackend(str(folder() / "journal.log")))
    local = config.storage == "sqlite"
    if not local and "://" not in config.storage:
        raise InputError(
            f"sweep.storage must be sqlite, journal, or a database's URL, got {config.storage}"
        )
    url = f"sqlite:///{folder() / 'optuna.db'}" if local else config.storage
    try:
        try:
            return _database(url, config.heartbeat_s)
        except (IntegrityError, ProgrammingError):
            # A worker of another machine made the tables in the same moment: they are there.
            time.sleep(1)
            return _database(url, config.heartbeat_s)
    except ImportError as error:
        raise InputError(
            f"sweep.storage needs a driver that is not installed: {str(error).splitlines()[0]}; "
            "for PostgreSQL: pip install 'psycopg[binary]' and postgresql+psycopg://..."
        ) from error
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"sweep.storage must be a database that answers: {reason}") from error


def _database(url: str, heartbeat_s: int) -> RDBStorage:
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        heartbeat_interval=heartbeat_s,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )


def _made(module: Any, section: str, chosen: Sampler | Pruner, options: dict[str, Any]) -> Any:
    kind = getattr(module, chosen.name, None)
    if kind is None:
        raise InputError(f"{section}.name must be a class of {module.__name__}, got {chosen.name}")
    try:
        return kind(**options, **chosen.options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{section}.options do not suit {chosen.name}: {error}") from error


class _Seeded(BaseSampler):
    """A sampler that draws from (seed, trial number): a resumed study goes on as a whole one."""

    def __init__(self, chosen: Sampler, seed: int, avoid: int | None) -> None:
        self._chosen, self._seed, self._avoid = chosen, seed, avoid
        self._inner = self._fresh(0)

    def _fresh(self, number: int) -> Any:
        seed = hashlib.sha256(f"{self._seed} {number}".encode()).digest()[:4]
        options = {"seed": int.from_bytes(seed)}
        return _made(optuna.samplers, "sampler", self._chosen, options)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._inner = self._fresh(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Any:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Any) -> Any:
        for _ in range(20):
            params = self._inner.sample_relative(study, trial, search_space)
            if params.get("cut", -1) != self._avoid:
                break
        return params

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, space: Any) -> Any:
        for _ in range(20):
            value = self._inner.sample_independent(study, trial, name, space)
            if name != "cut" or value != self._avoid:
                break
        return value

    def after_trial(self, study: Study, trial: FrozenTrial, state: Any, values: Any) -> None:
        self._inner.after_trial(study, trial, state, values)


def add_once(
    study: Study, params: dict[str, Any], kind: str, telling: tuple[str, ...] = ()
) -> None:
    """Queue a trial with given parameters unless the study has it, in whatever state.

    Args:
        study: Of the trial.
        params: Its parameters.
        kind: What it is for.
        telling: The parameters that tell whether it is there; all of them if empty.
    """
    for trial in study.get_trials(deepcopy=False):
        there = _fixed(trial) or trial.params
        same = all(there.get(name) == params[name] for name in telling or params)
        if same and not _died(trial):
            return
    study.enqueue_trial(params, user_attrs={"kind": kind})


def run_trials(study: Study, objective: Objective, total: int) -> None:
    """Run trials until `total` have finished; wait for those that others run.

    Args:
        study: Shared with other workers, here and elsewhere.
        objective: A trial -> what is minimized. Its exceptions fail the trial, not the sweep.
        total: How many trials there are in the end.
    """
    lock = lock_of(study.study_name)
    while True:
        with lock:
            put_back(study)
            trials = study.get_trials(deepcopy=False)
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            if len(finished(trials)) + len(running) < total:
                # Held until the trial knows whose it is.
                study.optimize(
                    _owned(objective, study, lock, total), n_trials=1, catch=(Exception,)
                )
                continue
        if not running:
            return
        time.sleep(0.5)


def finished(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Complete, pruned, and failed by a fault of their own."""
    return [trial for trial in trials if trial.state.is_finished() and not _died(trial)]


def put_back(study: Study) -> None:
    """Queue again, as they were, the trials whose process on this machine is gone."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get("process")
        if owner is None:
            # Killed before it could say so; or started this moment on another machine.
            started = trial.datetime_start or datetime.now()
            if (datetime.now() - started).total_seconds() < 60 and not _is_local(study):
                continue
        elif not processes.dead(owner):
            continue
        deaths = trial.user_attrs.get("deaths", 0) + 1
        study._storage.set_trial_user_attr(trial._trial_id, "deaths", deaths)
        if deaths < DEATHS:
            requeue(study, trial._trial_id)
            continue
        told = f"its process was killed {deaths} times: too little memory?"
        study._storage.set_trial_user_attr(trial._trial_id, "error", told)
        study.tell(trial.number, state=TrialState.FAIL)


def requeue(study: Study, trial_id: int) -> None:
    """Let another worker run a trial, with the parameters that it has."""
    storage = study._storage
    backend = getattr(storage, "_backend", storage)  # Optuna puts a cache before a database
    if isinstance(backend, RDBStorage):
        backend.record_heartbeat(trial_id)  # or it would count as missing from the start
    storage.set_trial_state_values(trial_id, TrialState.WAITING)


def _is_local(study: Study) -> bool:
    backend = getattr(study._storage, "_backend", study._storage)
    return not isinstance(backend, RDBStorage) or backend.url.startswith("sqlite")


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was queued with."""
    return dict(trial.system_attrs.get("fixed_params", {}))


def _died(trial: FrozenTrial) -> bool:
    """Whether a trial ended with its process, or was one too many."""
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def _owned(objective: Objective, study: Study, lock: FileLock, total: int) -> Objective:
    """The objective, told whose it is, with what went wrong kept."""

    def owned(trial: Trial) -> float:
        try:
            trial.set_user_attr("process", processes.identity())
            every = study.get_trials(deepcopy=False)
            lock.release()
            with _reacquired(lock):
                if _surplus(every, trial.number, total):
                    raise Surplus
                return objective(trial)
        except Stopped as stopped:
            raise optuna.TrialPruned(str(stopped)) from stopped
        except Surplus:
            raise
        except Exception:
            trial.set_user_attr("error", traceback.format_exc())
            raise
        except SystemExit:
            requeue(study, trial._trial_id)
            raise

    return owned


def _surplus(trials: list[FrozenTrial], number: int, total: int) -> bool:
    """Whether enough trials, or one that was queued alike, began before this one."""
    before = [t for t in trials if t.number < number and t.state != TrialState.WAITING]
    before = [t for t in before if not _died(t)]
    (own,) = [_fixed(t) for t in trials if t.number == number]
    return len(before) >= total or any(own and _fixed(t) == own for t in before)


@contextmanager
def _reacquired(lock: FileLock) -> Iterator[None]:
    """The lock is released by whoever took it: it must be held again at the end."""
    try:
        yield
    finally:
        lock.acquire()
