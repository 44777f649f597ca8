"""The right to change a champion, held by one process at a time, on whichever machine.

client + name of a registered model -> a block that nobody else is in. MLflow's registry has no
locks, but its names are unique: the lease is a registered model of its own.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.tracking import processes

if TYPE_CHECKING:
    from mlflow import MlflowClient

TIME_S = 900
"""After which the lease of another machine may be taken over; here the process is asked."""

_WAIT_S = 0.5


class Lease:
    """Of one registered model.

    Args:
        client: Of the tracking store.
        name: Of the registered model.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client = client
        self._name = f"{name}.promotion-lease"
        self._token = uuid.uuid4().hex

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until nobody holds it, and hold it.

        Of all who make it at once, the database lets one. That of a process that was killed is
        taken over, after 15 minutes if it was on another machine.
        """
        announced = False
        while not self._claim():
            if (holder := self._holder()) and not announced:
                who = f"{holder['process.host']} (process {holder['process.pid']})"
                print(f"{who} is promoting or rolling back: waiting for it", file=sys.stderr)
                announced = True
            time.sleep(_WAIT_S)
        try:
            yield
        finally:
            self._release()

    def is_held(self) -> bool:
        """Whether it is held still: whoever takes longer than its time may have lost it."""
        return self._is_of(self._token)

    def _claim(self) -> bool:
        """Make the lease; False if somebody holds it."""
        from mlflow.exceptions import MlflowException

        holder = self._holder()
        if holder and not (_has_ended(holder) and self._set_aside(holder["token"])):
            return False
        ends = str(time.time() + TIME_S)
        mine = {**processes.identity(), "token": self._token, "ends": ends}
        description = "Held while a promotion or a rollback runs."
        try:
            self._client.create_registered_model(self._name, mine, description)
        except MlflowException as error:
            # The second is of one that was released while the database refused another.
            if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
                raise
            return False
        return True

    def _set_aside(self, token: str) -> bool:
        """Give a lease that has ended another name; False if somebody else was faster.

        That name stays taken until the new lease is released: who comes late cannot set aside
        the new one instead.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.rename_registered_model(self._name, f"{self._name}.{token}")
        except MlflowException:
            if self._is_of(token):
                raise
            return False
        return True

    def _release(self) -> None:
        """Remove the lease, unless somebody has set it aside, and what was set aside."""
        if self.is_held():
            self._client.delete_registered_model(self._name)
            for aside in self._client.search_registered_models(f"name LIKE '{self._name}.%'"):
                self._client.delete_registered_model(aside.name)

    def _is_of(self, token: str) -> bool:
        return (self._holder() or {}).get("token") == token

    def _holder(self) -> dict[str, str] | None:
        """Who holds it, dead or alive; None if nobody does."""
        from mlflow.exceptions import MlflowException

        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise


def _has_ended(holder: Mapping[str, str]) -> bool:
    """Whether the holder's process is gone or, on another machine, has had its time."""
    if processes.here(holder):
        return processes.dead(holder)
    return float(holder["ends"]) < time.time()
