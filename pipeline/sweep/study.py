"""Storage, sampler and pruner of a sweep's trials."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError, ProgrammingError

from pipeline.errors import InputError
from pipeline.sections import Pruner, Sampler, Sweep
from pipeline.storage import addresses, databases, workspace
from pipeline.sweep import objectives

TOTAL = "total"
"""Attribute of a study with its total number of trials, which may be lower on a grid."""


def folder() -> Path:
    """Return the folder with the results of all sweeps."""
    return workspace.root() / "sweeps"


def open_study(sweep: Sweep, seed: int, name: str, avoid: int | None = None) -> Study:
    """Open a study, creating it if needed.

    `avoid` is a value of the parameter `cut` that is not drawn: head only is tried once.

    Raises:
        InputError: The storage does not answer.
    """
    # Without Optuna's messages about trials: the sweep has a bar and a report.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").addFilter(lambda record: "failed with" not in record.getMessage())
    # Two processes that create the tables at the same time would break them.
    with FileLock(folder() / ".storage.lock"):
        return optuna.create_study(
            study_name=name,
            storage=_storage(sweep),
            sampler=_Seeded(_SAMPLERS[sweep.sampler], seed, avoid),
            pruner=_PRUNERS[sweep.pruner](),
            directions=[objectives.DIRECTIONS[name] for name in sweep.objectives],
            load_if_exists=True,
        )


_SAMPLERS: dict[Sampler, Callable[..., BaseSampler]] = {
    Sampler.tpe: optuna.samplers.TPESampler,
    Sampler.random: optuna.samplers.RandomSampler,
    Sampler.grid: optuna.samplers.BruteForceSampler,
}
_PRUNERS: dict[Pruner, Callable[[], BasePruner]] = {
    Pruner.median: partial(MedianPruner, n_startup_trials=5, n_warmup_steps=2),
    Pruner.hyperband: partial(HyperbandPruner, min_resource=1, reduction_factor=3),
    Pruner.wilcoxon: partial(WilcoxonPruner, p_threshold=0.1),
    Pruner.none: NopPruner,
}


def _storage(config: Sweep) -> BaseStorage:
    local = config.storage == "sqlite"
    if not local and "://" not in config.storage:
        raise InputError(
            "sweep.storage must be sqlite or a database's URL, got "
            f"{addresses.public(config.storage)}"
        )
    url = addresses.of_file(folder() / "optuna.db") if local else config.storage
    answers = addresses.is_database(url) and not addresses.unreachable(url)  # else opening says why
    if answers and (reason := databases.unfit(url, databases.OPTUNA)):
        raise InputError(
            f"sweep.storage must be an Optuna database, got {addresses.public(url)}: {reason}"
        )
    try:
        try:
            return _database(url, config.heartbeat_s)
        except (IntegrityError, ProgrammingError):
            # A worker on another machine created the tables at the same moment.
            time.sleep(1)
            return _database(url, config.heartbeat_s)
    except ImportError as error:
        raise InputError(
            f"sweep.storage needs a driver: {str(error).splitlines()[0]}; for PostgreSQL, "
            "pip install 'psycopg[binary]' and use postgresql+psycopg://..."
        ) from error
    except Exception as error:
        reason = addresses.without_secrets(str(error.__cause__ or error).splitlines()[0], url)
        raise InputError(
            f"the database {addresses.public(url)} in sweep.storage does not answer: "
            f"{reason}; start it, or correct the address"
        ) from error


def _database(url: str, heartbeat_s: int) -> RDBStorage:
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        heartbeat_interval=heartbeat_s,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )


class _Seeded(BaseSampler):
    """A sampler seeded by (seed, trial number), so that a resumed study continues identically."""

    def __init__(self, chosen: Callable[..., BaseSampler], seed: int, avoid: int | None) -> None:
        self._chosen, self._seed, self._avoid = chosen, seed, avoid
        self._inner = self._fresh(0)

    def _fresh(self, number: int) -> Any:
        seed = hashlib.sha256(f"{self._seed} {number}".encode()).digest()[:4]
        return self._chosen(seed=int.from_bytes(seed))

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
