"""The MLflow model registry: versions of the classifier, one of them the champion.

LoggedModel -> version, alias `champion`, rollback. Only this file uses the registry.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.release import candidate
from pipeline.sections import Tracking
from pipeline.serving.classifier import MODEL
from pipeline.storage import outputs
from pipeline.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException


_ALIAS = "champion"
_FILE = "data/model.keras"  # in a logged model
_FACTS = {"commit": "git.commit", "data": "data.md5", "code": "code.sha256"}
"""Fact about a model -> its tag."""
_BEFORE = "champion.before"
_ROLLED_BACK = "champion.rolled_back"


class Registry:
    """The versions of one registered model."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name

    def champion(self) -> ModelVersion | None:
        """Return the version with the alias; None if there is none."""
        model = self._model()
        version = model.aliases.get(_ALIAS) if model else None
        return self._client.get_model_version(self._name, version) if version else None

    def register(
        self, model: LoggedModel, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        """Return the version of a LoggedModel, creating it if needed."""
        uri = f"models:/{model.model_id}"
        existing = [v for v in self._versions(f"name = '{self._name}'") if v.source == uri]
        version = (
            existing[0]
            if existing
            else self._client.create_model_version(
                self._name, uri, model.source_run_id, model_id=model.model_id
            )
        )
        for key, value in tags.items():
            self._client.set_model_version_tag(self._name, version.version, key, value)
        self._client.update_model_version(self._name, version.version, description)
        return version

    def crown(self, version: ModelVersion, judged_against: ModelVersion | None) -> None:
        """Make a version the champion, as the last step of a promotion.

        Raises:
            InputError: The champion is no longer the one it was compared with.
        """
        before = _number(judged_against)
        self._client.set_model_version_tag(self._name, version.version, _BEFORE, before)
        self._give_alias(version.version, judged_against)

    def rollback(self) -> tuple[str, str]:
        """Give the alias back to the previous champion; returns both version numbers.

        Raises:
            InputError: There is no champion, or no previous one.
        """
        self._crowned()  # before anything is written
        with self.alone():
            champion = self._crowned()
            before = champion.tags.get(_BEFORE, "none")
            if before == "none":
                raise InputError(
                    f"version {champion.version} of {self._name} is its first champion: there is "
                    "no previous one"
                )
            if not self._versions(f"name = '{self._name}' and version_number = {before}"):
                raise InputError(
                    f"version {before} of {self._name}, the previous champion, was deleted: set "
                    "the alias to another version in the MLflow UI"
                )
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self._client.set_model_version_tag(self._name, champion.version, _ROLLED_BACK, when)
            self._give_alias(before, champion)
            return str(champion.version), before

    def _give_alias(self, version: str, expected: ModelVersion | None) -> None:
        """Move the alias if the champion is still the expected one.

        Processes on one machine wait for each other; of two machines at the same moment, the later
        one stops here.
        """
        now, before = _number(self.champion()), _number(expected)
        if now != before:
            raise InputError(
                f"the champion of {self._name} is now version {now}, but this was decided "
                f"against version {before}: run the same command again"
            )
        self._client.set_registered_model_alias(self._name, _ALIAS, version)

    def _crowned(self) -> ModelVersion:
        champion = self.champion()
        if champion is None:
            raise InputError(f"{self._name} has no champion: run promote first")
        return champion

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process on this machine promotes or rolls back.

        Raises:
            InputError: The name is not allowed.
        """
        if self._model() is None:
            self._make()
        # A file shared by all of a user's processes on this machine.
        text = f"{getattr(os, 'getuid', str)()} {self._client.tracking_uri} {self._name}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"pipeline-promotion-{digest}.lock"
        with outputs.waiting(path, "another promotion or rollback is running"):
            yield

    def _model(self) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self._name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise _bad_name(self._name, error) from error

    def _make(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self._name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise _bad_name(self._name, error) from error

    def _versions(self, query: str) -> list[ModelVersion]:
        return list(self._client.search_model_versions(query))


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--model` and `--allow-code`."""
    parser.add_argument(
        "--model",
        default=str(MODEL),
        help=f"a .keras file (default {MODEL}) or a registry URI such as models:/NAME@champion",
    )
    parser.add_argument(
        "--allow-code",
        action="store_true",
        help="allow Lambda layers in a file named by --model to run code: only if you trust it",
    )


def is_uri(name: str) -> bool:
    """Check if a model's name is an MLflow URI, not a path."""
    return name.startswith(("models:/", "runs:/"))


def model_file(name: str, compose: Callable[[], Config]) -> Path:
    """Return the .keras file that `--model` names: a path, or a model in the registry.

    Raises:
        InputError: There is no such model in the registry.
    """
    if is_uri(name):
        return download(name, compose().tracking)
    if is_own(name) and candidate.is_other("finetune"):
        print(
            "warning: outputs/finetune differs from dvc.lock: run dvc checkout to restore it, or "
            "dvc repro to update it",
            file=sys.stderr,
        )
    return Path(name)


def champion_uri(name: str) -> str:
    """Return the URI of a registered model's champion."""
    return f"models:/{name}@{_ALIAS}"


def facts(uri: str, config: Tracking) -> dict[str, str]:
    """Return version, commit, code and data of a model, as far as the registry knows them."""
    entity = _entity(store.connect(config), uri) if is_uri(uri) else None
    if entity is None:
        return {}
    version = {"version": str(entity.version)} if hasattr(entity, "version") else {}
    return version | {key: entity.tags[tag] for key, tag in _FACTS.items() if tag in entity.tags}


def download(uri: str, config: Tracking) -> Path:
    """Return the .keras file of a registered or logged model.

    Args:
        uri: `models:/NAME@champion`, `models:/NAME/VERSION`, `models:/MODEL_ID` or
            `runs:/RUN/model`.
        config: Section `tracking`.

    Raises:
        InputError: There is no such model.
    """
    client = store.connect(config)
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        folder = _in_place(client, uri) or mlflow.artifacts.download_artifacts(uri)
        file = Path(folder, _FILE)
        if file.exists():
            return file
        reason = f"No such artifact: {_FILE}"
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
    remedy = "create a champion with python -m pipeline promote"
    if reason.startswith("No such artifact"):
        reason = "it is registered, but its files are missing"
        remedy = "restore them (mlartifacts/), or delete it in the MLflow UI and promote again"
    store_address = store.public_address(config)
    raise InputError(f"no model {uri} in the registry of {store_address}: {reason}; {remedy}")


def _in_place(client: MlflowClient, uri: str) -> Path | None:
    """Return the folder of a model whose files are on this machine, else None.

    A download would write into that folder, which may be read-only in a container.
    """
    entity = _entity(client, uri)
    if hasattr(entity, "version"):
        entity = _entity(client, str(entity.source))
    if entity is None:
        return None
    location = urlsplit(str(entity.artifact_location))
    folder = Path(url2pathname(location.path))
    return folder if location.scheme in ("", "file") and folder.is_dir() else None


def _entity(client: MlflowClient, uri: str) -> Any:
    """Return the ModelVersion or LoggedModel that a URI names; None for a run's model."""
    scheme, _, name = uri.partition(":/")
    if scheme != "models":
        return None
    if "@" in name:
        return client.get_model_version_by_alias(*name.split("@", 1))
    if "/" in name:
        return client.get_model_version(*name.split("/", 1))
    return client.get_logged_model(name) if name.startswith("m-") else None


def is_own(model: str) -> bool:
    """Check if a model is the pipeline's output or in its registry: its code is trusted."""
    return model == str(MODEL) or is_uri(model)


def _number(version: ModelVersion | None) -> str:
    return str(version.version) if version else "none"


def _bad_name(name: str, error: MlflowException) -> Exception:
    """Explain an invalid name; other errors stay unchanged."""
    if str(error.error_code) != "INVALID_PARAMETER_VALUE":
        other: Exception = error
        return other
    return InputError(
        f"promote.name is not allowed by the MLflow registry, got {name!r}: "
        f"{str(error).splitlines()[0]}"
    )
