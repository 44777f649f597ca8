"""Where runs are kept: the MLflow store, made once."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from pipeline.errors import InputError, shortened
from pipeline.sections import Tracking
from pipeline.storage import addresses, databases, workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException


_IN_DATABASE = re.compile(r"\((?:sqlite3|psycopg\d?|pymysql)\.[\w.]*\) (.+)")
# Where MLflow writes down, once and for all, the folder of an experiment, run or model.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def connect(config: Tracking) -> MlflowClient:
    """A client of the tracking store, which is made if it is the project's own database.

    Raises:
        InputError: The store cannot be reached.
    """
    # Its bars are for a terminal, as ours are.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", str(sys.stderr.isatty()))
    import mlflow
    from mlflow.exceptions import MlflowException

    if "%" in str(mlflow.__file__):
        raise InputError(
            f"MLflow cannot be in a folder whose path holds a %, got {mlflow.__file__}: move the "
            "project, or set tracking.enabled=false"
        )
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = address(config)
    mlflow.set_tracking_uri(uri)
    if uri != _own_store() and addresses.is_database(uri):
        # MLflow itself tries for minutes, and prints a trace each time.
        reason = addresses.unreachable(uri)
        if reason:
            raise InputError(_not_answering(config, reason))
    try:
        # Two processes that create the database at once would break it for good.
        with locked(), _few_tries():
            if addresses.is_database(uri) and (reason := databases.unfit(uri, databases.MLFLOW)):
                raise InputError(
                    f"tracking.uri must be a store of this MLflow, got {shown(config)}: {reason}"
                )
            if uri == _own_store():
                follow_project()
            client = mlflow.MlflowClient(uri)
            client.search_experiments(max_results=1)
    except (MlflowException, sqlite3.Error) as error:
        reason = addresses.without_secrets(_said(error), uri)
        raise InputError(_not_answering(config, reason)) from error
    return client


def _said(error: Exception) -> str:
    """The line of an error that says what is wrong: databases' own words, where it has them."""
    lines = str(error).splitlines() or [type(error).__name__]
    words = next((one for line in lines if (one := _IN_DATABASE.search(line))), None)
    return shortened(words[1] if words else lines[0])


def _not_answering(config: Tracking, reason: str) -> str:
    return (
        f"tracking.uri must be a store that answers, got {shown(config)}: {reason}; mend it, or "
        "set tracking.enabled=false"
    )


@contextmanager
def _few_tries() -> Iterator[None]:
    """Be told in seconds that a store is down; later, MLflow's own tries outlast minutes."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if name in os.environ:
        yield
        return
    os.environ[name] = "2"
    try:
        yield
    finally:
        del os.environ[name]


def is_gone(error: MlflowException) -> bool:
    """Whether the store answers, and what was asked for is not there any more."""
    return str(error.error_code) == "RESOURCE_DOES_NOT_EXIST"


class Gone(InputError):
    """The store answered before, and does not any more."""


@contextmanager
def answering(config: Tracking) -> Iterator[None]:
    """Work with a store that has answered before.

    Raises:
        Gone: It does not any more, or does not take what it is given.
    """
    if not config.enabled:
        yield
        return
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason = addresses.without_secrets(_said(error), address(config))
        if is_gone(error):
            raise Gone(
                f"something that this needs was removed from {shown(config)}: {reason}; run the "
                "same command again, which makes it anew"
            ) from error
        raise Gone(
            f"tracking.uri must be a store that answers until the end, got {shown(config)}: "
            f"{reason}; when it answers again, run the same command again"
        ) from error


def address(config: Tracking) -> str:
    """Address of the tracking store."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _own_store()


def shown(config: Tracking) -> str:
    """The store's address, for people: without a password."""
    return addresses.shown(address(config))


def _own_store() -> str:
    return addresses.of_file(_database())


def _database() -> Path:
    return workspace.root() / "mlflow.db"


def _artifacts() -> Path:
    return workspace.root() / "mlartifacts"


def follow_project() -> None:
    """Let the project's own store find its files after the project was moved or copied.

    MLflow keeps absolute addresses: without this a champion is lost with the old folder, and
    a copy writes into the folder that it was copied from. An address elsewhere that someone
    chose is left alone: only where the files of its runs lie here did they come along.
    """
    if not (_database().exists() and _artifacts().is_dir()):
        return
    here = _artifacts().as_uri()
    with closing(sqlite3.connect(_database(), timeout=60)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if not tables >= {table for table, _ in _ADDRESSES}:
            return  # MLflow has not finished making it, or an older one made it
        rows = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        strangers = [old for (old,) in rows if old and old.startswith("file:") and old != here]
        for old in strangers:
            runs = database.execute(
                "SELECT substr(artifact_uri, ?) FROM runs WHERE substr(artifact_uri, 1, ?) = ?",
                (len(old) + 2, len(old) + 1, f"{old}/"),
            )
            if not any((_artifacts() / path).is_dir() for (path,) in runs):
                continue
            with database:
                for table, column in _ADDRESSES:
                    database.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
            print(f"the project has moved: its runs are now in {_artifacts()}", file=sys.stderr)


def experiment(client: MlflowClient, config: Tracking) -> str:
    """Id of the experiment, which is made if it is not there."""
    with locked():
        existing = client.get_experiment_by_name(config.experiment)
        if existing is not None and existing.lifecycle_stage == "deleted":
            raise InputError(
                f"tracking.experiment must be one that is not deleted, got {config.experiment}: "
                f"MLFLOW_TRACKING_URI={shlex.quote(shown(config))} mlflow experiments restore -x "
                f"{existing.experiment_id}, or choose another name"
            )
        if existing is not None:
            return str(existing.experiment_id)
        artifacts = None
        if addresses.is_database(address(config)):
            # Absolute: DVC runs experiments in temporary copies of the project.
            artifacts = _artifacts().as_uri()
            if not address(config).startswith("sqlite:"):
                print(
                    f"files of runs are kept in {_artifacts()}, where other machines see them "
                    "only if they share that folder; or use an MLflow server as tracking.uri",
                    file=sys.stderr,
                )
        return str(client.create_experiment(config.experiment, artifact_location=artifacts))


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock under which the store, an experiment or a parent run is made.

    A project in which nothing may be written, as in a container, has none to make.
    """
    folder = workspace.root() / ".work"
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield
        return
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "tracking.lock"):
        yield
