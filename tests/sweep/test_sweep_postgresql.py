"""A study in a real PostgreSQL server, with workers on two machines."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from conftest import Run
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from postgresql import Server

pytestmark = pytest.mark.slow


def named(host: str) -> list[str]:
    """Run a command with the host name of another machine."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]


def joined(url: str, deadline: float) -> RDBStorage:
    """Open the storage once the sweep has created its tables, so as not to race with it."""
    engine = sqlalchemy.create_engine(url)
    while not _made(engine):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    engine.dispose()
    return RDBStorage(url)


def _made(engine: sqlalchemy.Engine) -> bool:
    last = "alembic_version"  # the table that Optuna fills last
    if not sqlalchemy.inspect(engine).has_table(last):
        return False
    with engine.connect() as connection:
        return connection.execute(sqlalchemy.text(f"SELECT 1 FROM {last}")).first() is not None


def trials(storage: RDBStorage) -> list[FrozenTrial]:
    (item,) = storage.get_all_studies() or [None]
    return storage.get_all_trials(item._study_id) if item else []


MACHINE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_sweep_study as t
Path("ready").touch()
while len(list(Path("..").glob("*/ready"))) < {machines}:
    pass
t.trials(sys.argv[1])
"""


def test_machines_that_make_the_tables_in_the_same_moment(server: Server, tmp_path: Path) -> None:
    code = MACHINE.format(tests=str(Path(__file__).parent), machines=4)
    started = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        started.append(subprocess.Popen([sys.executable, "-c", code, server.url], cwd=folder))
    assert [item.wait(120) for item in started] == [0, 0, 0, 0]
    assert len(optuna.get_all_study_names(server.url)) == 1


@pytest.mark.parametrize("machines", ["item", "two"])
def test_a_killed_worker_loses_no_trial(
    server: Server, clone: Path, tmp_path: Path, machines: str
) -> None:
    hosts = ["here", "here" if machines == "one" else "there"]
    if subprocess.run([*named("here"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to give a process a host name of its own (unshare --uts)")
    other = tmp_path / "other"
    shutil.copytree(clone, other, symlinks=True)
    words = [f"sweep.storage={server.url}", "sweep.n_trials=6", "sweep.heartbeat_s=3"]
    words += ["finetune.epochs=10", "finetune.patience=10", "sweep.pruner=none"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def start(folder: Path, host: str) -> subprocess.Popen[bytes]:
        command = [*named(host), sys.executable, "-m", "pipeline", "sweep", *words]
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            start_new_session=True,
            stdout=(folder / "told.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )

    first, second = start(clone, hosts[0]), start(other, hosts[1])
    deadline = time.monotonic() + 200
    while not list(clone.glob("sweeps/*/")) and time.monotonic() < deadline:
        time.sleep(0.1)
    storage = joined(server.url, deadline)
    mine: list[FrozenTrial] = []
    while not mine and time.monotonic() < deadline:
        time.sleep(0.1)
        # In mid-trial: it has reported an epoch, and is not at its end.
        mine = [
            trial
            for trial in trials(storage)
            if trial.state == TrialState.RUNNING
            and 0 < len(trial.intermediate_values) < 6
            and _of(trial, first.pid)
        ]
    assert mine, (clone / "told.txt").read_text()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert second.wait(300) == 0, (other / "told.txt").read_text()
    actual = trials(storage)
    done = [trial for trial in actual if trial.state == TrialState.COMPLETE]
    assert len(done) == 6
    assert len({str(trial.params) for trial in done}) == 6, "none counted twice"
    (taken_up,) = [trial for trial in done if trial.params == mine[0].params]
    owner = taken_up.user_attrs["process"]
    assert owner["process.host"] == hosts[1]
    if machines == "one":
        assert taken_up.number == mine[0].number, "put back as it was"
    else:
        # Both machines may have queued a first trial, and one of them given it up at once.
        stopped = [t for t in actual if t.state == TrialState.FAIL and t.intermediate_values]
        assert [trial.number for trial in stopped] == [mine[0].number], "its heartbeats stopped"
    message = (other / "told.txt").read_text()
    assert "6 trials, 0 of them pruned, 0 failed" in message
    (best,) = other.glob("sweeps/*/best.yaml")
    assert "secret" not in best.read_text() + message


def test_a_database_that_goes_away(server: Server, clone: Path, run: Run) -> None:
    command = [sys.executable, "-m", "pipeline", "sweep", f"sweep.storage={server.url}"]
    command += ["sweep.n_trials=4", "sweep.pruner=none", "finetune.epochs=5"]
    with (clone / "told.txt").open("wb") as message:
        sweep = subprocess.Popen(command, cwd=clone, stdout=message, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    storage = joined(server.url, deadline)
    while not any(trial.state == TrialState.COMPLETE for trial in trials(storage)):
        assert time.monotonic() < deadline, (clone / "told.txt").read_text()
        time.sleep(0.2)
    server.stop()
    assert sweep.wait(120) == 1
    *_, error = (clone / "told.txt").read_text().splitlines()
    assert error.startswith("error: the database in sweep.storage stopped answering: ")
    assert "Traceback" not in (clone / "told.txt").read_text()
    server.start()
    again = run(clone, *command)
    assert again.returncode == 0, again.stderr
    assert "4 trials, 0 of them pruned, 0 failed" in again.stdout
    assert len([t for t in trials(RDBStorage(server.url)) if t.state == TrialState.COMPLETE]) == 4


def _of(trial: FrozenTrial, group: int) -> bool:
    """Check if the process that runs a trial belongs to a process group."""
    pid = trial.user_attrs.get("process", {}).get("process.pid")
    try:
        return pid is not None and os.getpgid(int(pid)) == group
    except ProcessLookupError:
        return False
