"""Detection of ended processes: of this machine, of another, of a container with its name."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.tracking import processes

TELL = (
    "import json; from pipeline.tracking import processes; print(json.dumps(processes.identity()))"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield child
        child.kill()


def test_a_process_is_alive_until_it_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    mine = processes.identity()
    assert processes.here(mine)
    assert not processes.dead(mine)
    theirs = mine | {
        "process.pid": str(sleeper.pid),
        "process.started": processes._started(sleeper.pid),
    }
    assert not processes.dead(theirs)
    sleeper.kill()
    assert sleeper.wait() != 0
    assert processes.dead(theirs)


def test_a_number_that_came_again_is_another_process() -> None:
    assert processes.dead(processes.identity() | {"process.started": "1 ticks"})


def test_a_machine_that_was_restarted_has_none_of_its_processes() -> None:
    before = processes.identity() | {"process.boot": "another"}
    if processes._space().endswith(processes._WHOLE_MACHINE):
        assert processes.dead(before)
    else:
        assert not processes.here(before)


def test_a_clock_that_is_set_back_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = processes.identity()
    monkeypatch.setattr("psutil.boot_time", lambda: 0.0)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: 0.0)
    assert not processes.dead(mine)


def test_two_containers_with_one_name_are_two_machines() -> None:
    """`unshare` makes what a container is made of: processes that count from 1."""
    command = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", TELL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode:
        pytest.skip(f"may not make namespaces here: {done.stderr.strip()}")
    theirs = json.loads(done.stdout)
    mine = processes.identity()
    assert theirs["process.host"] == mine["process.host"]
    assert theirs["process.pid"] == "1"
    assert not processes.here(theirs)
    assert not processes.dead(theirs), "whether it lives cannot be seen from here"
