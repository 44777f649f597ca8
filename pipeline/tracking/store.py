"""The MLflow tracking store, created once."""

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
# Columns with absolute addresses of experiments, runs and models.
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def connect(config: Tracking) -> MlflowClient:
    """Connect to the tracking store, creating it if it is the project's own database.

    Raises:
        InputError: The store does not answer.
    """
    # Bars only on terminals, like our own.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", str(sys.stderr.isatty()))
    import mlflow
    from mlflow.exceptions import MlflowException

    if "%" in str(mlflow.__file__):
        raise InputError(
            f"MLflow cannot run from a path with a %, got {mlflow.__file__}: move the project, or "
            "set tracking.enabled=false"
        )
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = address(config)
    mlflow.set_tracking_uri(uri)
    if uri != _own_store() and addresses.is_database(uri):
        # MLflow itself retries for minutes, and prints a trace each time.
        reason = addresses.unreachable(uri)
        if reason:
            raise InputError(_not_answering(config, reason))
    try:
        # Two processes that create the database at the same time would break it.
        with locked(), _few_tries():
            if addresses.is_database(uri) and (reason := databases.unfit(uri, databases.MLFLOW)):
                raise InputError(
                    f"tracking.uri={public_address(config)} is not usable with this MLflow: "
                    f"{reason}"
                )
            if uri == _own_store():
                follow_project()
            client = mlflow.MlflowClient(uri)
            client.search_experiments(max_results=1)
    except (MlflowException, sqlite3.Error) as error:
        reason = addresses.without_secrets(_message(error), uri)
        raise InputError(_not_answering(config, reason)) from error
    return client


def _message(error: Exception) -> str:
    """Extract the line that explains an error, preferably the database's own words."""
    lines = str(error).splitlines() or [type(error).__name__]
    words = next((match for line in lines if (match := _IN_DATABASE.search(line))), None)
    return shortened(words[1] if words else lines[0])


def _not_answering(config: Tracking, reason: str) -> str:
    return (
        f"the tracking store {public_address(config)} does not answer: {reason}; fix it, or set "
        "tracking.enabled=false"
    )


@contextmanager
def _few_tries() -> Iterator[None]:
    """Fail within seconds if a store is down; later, MLflow's own retries bridge minutes."""
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
    """Check if the store answers, but the requested item no longer exists."""
    return str(error.error_code) == "RESOURCE_DOES_NOT_EXIST"


class Gone(InputError):
    """The store no longer answers."""


@contextmanager
def answering(config: Tracking) -> Iterator[None]:
    """Work with a store that has answered before.

    Raises:
        Gone: It no longer answers, or rejects a request.
    """
    if not config.enabled:
        yield
        return
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason = addresses.without_secrets(_message(error), address(config))
        if is_gone(error):
            raise Gone(
                f"a required item was removed from {public_address(config)}: {reason}; run the "
                "same command again to recreate it"
            ) from error
        raise Gone(
            f"the tracking store {public_address(config)} stopped answering: {reason}; run the "
            "same command again when it answers"
        ) from error


def address(config: Tracking) -> str:
    """Return the address of the tracking store."""
    return config.uri or os.environ.get("MLFLOW_TRACKING_URI") or _own_store()


def public_address(config: Tracking) -> str:
    """Return the store's address without passwords."""
    return addresses.public(address(config))


def _own_store() -> str:
    return addresses.of_file(_database())


def _database() -> Path:
    return workspace.root() / "mlflow.db"


def _artifacts() -> Path:
    return workspace.root() / "mlartifacts"


def follow_project() -> None:
    """Update addresses in the project's own store after the project was moved or copied.

    MLflow stores absolute addresses: without this, a champion is lost with the old folder, and a
    copy writes into the original. Addresses elsewhere are left alone, unless the files of their
    runs are here.
    """
    if not (_database().exists() and _artifacts().is_dir()):
        return
    here = _artifacts().as_uri()
    with closing(sqlite3.connect(_database(), timeout=60)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if not tables >= {table for table, _ in _ADDRESSES}:
            return  # MLflow has not finished creating it, or it is from an older version
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
            print(f"the project was moved: its runs are now in {_artifacts()}", file=sys.stderr)


def experiment(client: MlflowClient, config: Tracking) -> str:
    """Return the id of the experiment, creating it if needed."""
    with locked():
        existing = client.get_experiment_by_name(config.experiment)
        if existing is not None and existing.lifecycle_stage == "deleted":
            raise InputError(
                f"tracking.experiment={config.experiment} was deleted: restore it with "
                f"MLFLOW_TRACKING_URI={shlex.quote(public_address(config))} mlflow experiments "
                f"restore -x {existing.experiment_id}, or choose another name"
            )
        if existing is not None:
            return str(existing.experiment_id)
        artifacts = None
        if addresses.is_database(address(config)):
            # Absolute: DVC runs experiments in temporary copies of the project.
            artifacts = _artifacts().as_uri()
            if not address(config).startswith("sqlite:"):
                print(
                    f"files of runs are stored in {_artifacts()}; other machines need that folder, "
                    "or an MLflow server as tracking.uri",
                    file=sys.stderr,
                )
        return str(client.create_experiment(config.experiment, artifact_location=artifacts))


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock for creating the store, an experiment or a parent run.

    A read-only project, as in a container, creates none of them.
    """
    folder = workspace.root() / ".work"
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK):
        yield
        return
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "tracking.lock"):
        yield
