"""Section `cluster`, which does not affect results, and the connection to its Ray cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InputError
from pipeline.settings import setting

_GONE_S = 10.0


@dataclass
class Config:
    """Section `cluster`."""

    use: str = setting("none", "Distribute work over machines.", group="cluster")
    address: str = setting(
        "local",
        "HOST:6379 of a Ray cluster started with `ray start`; local starts one on this "
        "machine for the duration of the command.",
    )
    workers: int | None = setting(
        None, "Total number of processes; null for one per `threads` processors.", least=1
    )

    @property
    def on(self) -> bool:
        """True if work is distributed."""
        return self.use != "none"


@contextmanager
def connected(config: Config) -> Iterator[Any]:
    """Connect to Ray for the duration of the block.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray hides GPUs from tasks that request none; Keras uses what is there.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "cluster.use=ray needs Ray: pip install ray, or set cluster.use=none"
        ) from error
    inside = ray.is_initialized()
    if not inside:
        own = config.address == "local"
        if not own:
            _check_answer(config.address)  # Ray would wait for minutes
        try:
            ray.init(
                address=config.address,
                include_dashboard=False if own else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ConnectionError as error:
            raise InputError(_rejection(config.address, error)) from error
    try:
        yield ray
    finally:
        if not inside:
            ray.shutdown()


def _check_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _GONE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"cluster.address must be local or HOST:PORT of a running Ray cluster, got {address}: "
            f"{error}; start one with ray start --head, which prints its address"
        ) from error


def _rejection(address: str, error: ConnectionError) -> str:
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    if "AuthToken" in str(reason):
        return (
            f"the Ray cluster at {address} requires a token: set RAY_AUTH_MODE=token, here and on "
            "every node, and copy ~/.ray/auth_token from its head node to each of them"
        )
    return f"cluster.address must be a Ray cluster of this version, got {address}: {reason}"
