"""The lease of promotions and rollbacks, on a real database."""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipeline.errors import InputError
from pipeline.release.registry import Registry
from pipeline.tracking import processes

NAME = "classifier"
LEASE = "classifier.promotion-lease"


@pytest.fixture
def client(empty_store: Path, tmp_path: Path) -> MlflowClient:
    """A store of its own."""
    return MlflowClient(f"sqlite:///{shutil.copy(empty_store, tmp_path)}")


def leave(client: MlflowClient, **changes: str) -> None:
    """A lease that somebody left behind."""
    later = str(time.time() + 900)
    tags = {**processes.identity(), "token": "left", "ends": later, **changes}
    client.create_registered_model(LEASE, tags)


def test_one_at_a_time(client: MlflowClient) -> None:
    leave(client, **{"process.started": "0"})  # all of them find a dead one's lease
    start = threading.Barrier(6)
    inside: list[int] = []
    most: list[int] = []

    def promote(number: int) -> None:
        start.wait()
        for _ in range(3):
            with Registry(client, NAME).alone():
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.02)
                inside.remove(number)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(promote, range(6)))
    assert most == [1] * 18
    assert [one.name for one in client.search_registered_models()] == [NAME]


def killed(started: float) -> dict[str, str]:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return {"process.pid": str(process.pid), "process.started": str(started)}


@pytest.mark.parametrize(
    "ended",
    [
        lambda: killed(time.time()),
        lambda: {"process.host": "elsewhere", "ends": str(time.time() - 1)},
    ],
    ids=["killed here", "had its time elsewhere"],
)
def test_what_somebody_left_is_taken_over(
    client: MlflowClient, ended: Callable[[], dict[str, str]]
) -> None:
    leave(client, **ended())
    with Registry(client, NAME).alone():
        assert client.get_registered_model(LEASE).tags["token"] != "left"
    assert [one.name for one in client.search_registered_models()] == [NAME]


@pytest.mark.parametrize(
    "holder",
    [{"ends": "0"}, {"process.host": "elsewhere"}],
    ids=["alive here, however long", "elsewhere, in its time"],
)
def test_who_is_alive_is_waited_for(
    client: MlflowClient, holder: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    leave(client, **holder)
    done = threading.Event()

    def promote() -> None:
        with Registry(client, NAME).alone():
            done.set()

    waiting = threading.Thread(target=promote)
    waiting.start()
    assert not done.wait(2)
    client.delete_registered_model(LEASE)
    waiting.join(30)
    assert done.is_set()
    assert "is promoting or rolling back: waiting for it" in capsys.readouterr().err


def test_who_lost_the_lease_crowns_nobody(client: MlflowClient) -> None:
    slow = Registry(client, NAME)
    with slow.alone():
        version = client.create_model_version(NAME, "runs:/none/model", None)
        client.delete_registered_model(LEASE)
        with Registry(client, NAME).alone(), pytest.raises(InputError, match="run it again"):
            slow.crown(version, None)
    assert slow.champion() is None
    with slow.alone():
        slow.crown(version, None)
    assert slow.champion().version == version.version
