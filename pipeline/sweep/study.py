"""Where the trials of a sweep are kept, who draws their settings and who prunes them."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna import Study
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError, ProgrammingError

from pipeline.errors import InputError
from pipeline.storage import addresses, databases, workspace
from pipeline.sweep import journal, objectives
from pipeline.sweep.settings import Config, Pruner, Sampler

warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("optuna").addFilter(lambda record: "failed with" not in record.getMessage())


def folder() -> Path:
    """Where the results of all sweeps are."""
    return workspace.root() / "sweeps"


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
            directions=objectives.directions(config.sweep.objectives),
            load_if_exists=True,
        )


def _storage(config: Config) -> BaseStorage:
    if config.storage == "journal":
        journal.check(folder() / "journal.log")
        return JournalStorage(JournalFileBackend(str(folder() / "journal.log")))
    local = config.storage == "sqlite"
    if not local and "://" not in config.storage:
        raise InputError(
            "sweep.storage must be sqlite, journal, or a database's URL, got "
            f"{addresses.shown(config.storage)}"
        )
    url = addresses.of_file(folder() / "optuna.db") if local else config.storage
    _check(url)
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
        reason = addresses.without_secrets(str(error.__cause__ or error).splitlines()[0], url)
        raise InputError(
            f"sweep.storage must be a database that answers, got {addresses.shown(url)}: {reason}; "
            "start it, or correct the address"
        ) from error


def _check(url: str) -> None:
    """Stop at a database that answers and is not one of this Optuna."""
    if not addresses.is_database(url) or addresses.unreachable(url):
        return  # what opens it says why
    if reason := databases.unfit(url, databases.OPTUNA):
        raise InputError(
            f"sweep.storage must be a database of this Optuna, got {addresses.shown(url)}: {reason}"
        )


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
