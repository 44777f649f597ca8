"""The MLflow model registry: versions of the classifier, one of them the champion.

LoggedModel -> version, alias `champion`, the way back. Only this file knows the registry.
"""

from __future__ import annotations

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

from filelock import FileLock, Timeout

from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.release import candidate
from pipeline.sections import Tracking
from pipeline.serving.classifier import MODEL
from pipeline.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException


_ALIAS = "champion"
_FILE = "data/model.keras"  # in a logged model, named after what was logged
_BEFORE = "champion.before"
_ROLLED_BACK = "champion.rolled_back"


class Registry:
    """The versions of one registered model.

    Args:
        client: Of the tracking store.
        name: Of the registered model.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name

    def champion(self) -> ModelVersion | None:
        """The version that bears the alias; None if none does."""
        model = self._model()
        version = model.aliases.get(_ALIAS) if model else None
        return self._client.get_model_version(self._name, version) if version else None

    def register(
        self, model: LoggedModel, tags: Mapping[str, str], description: str
    ) -> ModelVersion:
        """The version of a LoggedModel, which is made if there is none.

        Args:
            model: What to register.
            tags: That the version gets, new or not.
            description: Likewise.
        """
        uri = f"models:/{model.model_id}"
        known = [one for one in self._versions(f"name = '{self._name}'") if one.source == uri]
        version = (
            known[0]
            if known
            else self._client.create_model_version(
                self._name, uri, model.source_run_id, model_id=model.model_id
            )
        )
        for key, value in tags.items():
            self._client.set_model_version_tag(self._name, version.version, key, value)
        self._client.update_model_version(self._name, version.version, description)
        return version

    def crown(self, version: ModelVersion, judged_against: ModelVersion | None) -> None:
        """Make a version the champion, as the very last step of a promotion.

        Raises:
            InputError: The champion is not the one that it was judged against.
        """
        before = _number(judged_against)
        self._client.set_model_version_tag(self._name, version.version, _BEFORE, before)
        self._give_alias(version.version, judged_against)

    def rollback(self) -> tuple[str, str]:
        """Give the alias back to the champion before; returns the numbers of both.

        Raises:
            InputError: There is no champion, or none before.
        """
        self._crowned()  # before anything is written
        with self.alone():
            champion = self._crowned()
            before = champion.tags.get(_BEFORE, "none")
            if before == "none":
                raise InputError(
                    f"version {champion.version} of {self._name} is its first champion: there is "
                    "none before it to go back to"
                )
            if not self._versions(f"name = '{self._name}' and version_number = {before}"):
                raise InputError(
                    f"version {before} of {self._name}, the champion before, was deleted: set the "
                    "alias to another version in the MLflow UI"
                )
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self._client.set_model_version_tag(self._name, champion.version, _ROLLED_BACK, when)
            self._give_alias(before, champion)
            return str(champion.version), before

    def _give_alias(self, version: str, expected: ModelVersion | None) -> None:
        """Move the alias if the champion is still the expected one.

        Processes of one machine wait for each other; of two machines at the same moment, the
        later one stops here.
        """
        now, before = _number(self.champion()), _number(expected)
        if now != before:
            raise InputError(
                f"the champion of {self._name} became version {now} meanwhile, and this was "
                f"decided against version {before}: run the same command again"
            )
        self._client.set_registered_model_alias(self._name, _ALIAS, version)

    def _crowned(self) -> ModelVersion:
        champion = self.champion()
        if champion is None:
            raise InputError(f"{self._name} has no champion to roll back: run promote first")
        return champion

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process of this machine promotes or rolls back.

        Raises:
            InputError: No model can have this name.
        """
        if self._model() is None:
            self._make()
        lock = FileLock(_lock_path(self._client.tracking_uri, self._name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print("another promotion or rollback is running: waiting for it", file=sys.stderr)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

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


def _lock_path(store: str, name: str) -> Path:
    """A file that all of a user's processes on this machine share, whatever their folder."""
    text = f"{getattr(os, 'getuid', str)()} {store} {name}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"pipeline-promotion-{digest}.lock"


def is_uri(name: str) -> bool:
    """Whether a model's name is one of MLflow's, not a path."""
    return name.startswith(("models:/", "runs:/"))


def model_file(name: str, compose: Callable[[], Config]) -> Path:
    """The .keras file that `--model` names: a path, or one in the registry.

    Args:
        name: A path, or an address as `download` takes it.
        compose: Gives the config, which tells where the registry is.

    Raises:
        InputError: There is no such model in the registry.
    """
    if is_uri(name):
        return download(name, compose().tracking)
    if is_own(name) and candidate.is_other("finetune"):
        print(
            "warning: outputs/finetune is not what dvc.lock records: dvc checkout brings that "
            "back, dvc repro makes it anew",
            file=sys.stderr,
        )
    return Path(name)


def champion_or(model: str | None, name: str, config: Tracking) -> tuple[str, Path]:
    """What to serve: a model that is named, or else the champion; and its .keras file.

    Args:
        model: Address of a model, or None.
        name: Of the registered model.
        config: Section `tracking`.

    Raises:
        InputError: There is no such model.
    """
    uri = model or f"models:/{name}@{_ALIAS}"
    return uri, download(uri, config)


def download(uri: str, config: Tracking) -> Path:
    """The .keras file of a registered or logged model.

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
    remedy = "python -m pipeline promote makes a champion"
    if reason.startswith("No such artifact"):
        reason = "it is listed there, but its files are gone"
        remedy = "restore them (mlartifacts/), or delete it in the MLflow UI and promote anew"
    raise InputError(
        f"the model must be in the registry of {store.shown(config)}, got {uri}: {reason}; {remedy}"
    )


def _in_place(client: MlflowClient, uri: str) -> Path | None:
    """The folder of a model whose files are on this machine, else None.

    A download would write into that folder, which a container may only read.
    """
    if uri.startswith("runs:/"):
        return None
    name = uri.removeprefix("models:/")
    while not name.startswith("m-") or "/" in name or "@" in name:
        if "@" in name:
            version = client.get_model_version_by_alias(*name.split("@", 1))
        elif "/" in name:
            version = client.get_model_version(*name.split("/", 1))
        else:
            return None
        name = str(version.source).removeprefix("models:/")
        if name == version.source:
            return None
    location = urlsplit(str(client.get_logged_model(name).artifact_location))
    folder = Path(url2pathname(location.path))
    return folder if location.scheme in ("", "file") and folder.is_dir() else None


def is_own(model: str) -> bool:
    """Whether a model is the pipeline's output or in its registry: code in it was allowed here.

    Args:
        model: A path or an address, as the command line has it.
    """
    return model == str(MODEL) or is_uri(model)


def _number(version: ModelVersion | None) -> str:
    return str(version.version) if version else "none"


def _bad_name(name: str, error: MlflowException) -> Exception:
    """What is wrong with a name; an error that is not about it stays as it is."""
    if str(error.error_code) != "INVALID_PARAMETER_VALUE":
        told: Exception = error
        return told
    return InputError(
        f"promote.name must be a name that the MLflow registry takes, got {name!r}: "
        f"{str(error).splitlines()[0]}"
    )
