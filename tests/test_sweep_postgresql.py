"""A study in a real PostgreSQL server, with workers on two machines."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that the test starts; Debian's package is installed where it can be."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update"], ["install", "--no-install-recommends", "postgresql"]):
            subprocess.run(["apt-get", "-qq", "-y", *command], check=True)
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    folder = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    as_user: list[str] = []
    if os.geteuid() == 0:  # which the server refuses to run as
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *options: str) -> None:
        command = [*as_user, str(programs[-1] / program), *options]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "optuna")
    where = ["-D", str(folder / "data"), "-l", str(folder / "log")]
    call("pg_ctl", *where, "-o", f"-h 127.0.0.1 -p {port} -k {folder}", "-w", "start")
    try:
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "optuna", "sweeps")
        yield f"postgresql+psycopg://optuna:secret@127.0.0.1:{port}/sweeps"
    finally:
        call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(folder)


def named(host: str) -> list[str]:
    """Run a command on a machine of that name, as far as it can tell."""
    return ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]


def trials(storage: RDBStorage) -> list[FrozenTrial]:
    (one,) = storage.get_all_studies() or [None]
    return storage.get_all_trials(one._study_id) if one else []


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


def test_machines_that_make_the_tables_in_the_same_moment(server: str, tmp_path: Path) -> None:
    code = MACHINE.format(tests=str(Path(__file__).parent), machines=4)
    started = []
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        started.append(subprocess.Popen([sys.executable, "-c", code, server], cwd=folder))
    assert [one.wait(120) for one in started] == [0, 0, 0, 0]
    assert len(optuna.get_all_study_names(server)) == 1


@pytest.mark.parametrize("machines", ["one", "two"])
def test_a_killed_worker_loses_no_trial(
    server: str, clone: Path, tmp_path: Path, machines: str
) -> None:
    hosts = ["here", "here" if machines == "one" else "there"]
    if subprocess.run([*named("here"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to give a process a host name of its own (unshare --uts)")
    other = tmp_path / "other"
    shutil.copytree(clone, other, symlinks=True)
    words = [f"sweep.storage={server}", "sweep.n_trials=6", "sweep.heartbeat_s=3"]
    words += ["finetune.epochs=10", "finetune.patience=10", "use.pruner=none"]
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
    storage = RDBStorage(server)
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
    found = trials(storage)
    done = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert len(done) == 6
    assert len({str(trial.params) for trial in done}) == 6, "none counted twice"
    (taken_up,) = [trial for trial in done if trial.params == mine[0].params]
    owner = taken_up.user_attrs["process"]
    assert owner["process.host"] == hosts[1]
    if machines == "one":
        assert taken_up.number == mine[0].number, "put back as it was"
    else:
        # Both machines may have queued a first trial, and one of them given it up at once.
        stopped = [t for t in found if t.state == TrialState.FAIL and t.intermediate_values]
        assert [trial.number for trial in stopped] == [mine[0].number], "its heartbeats stopped"
    told = (other / "told.txt").read_text()
    assert "6 trials, 0 of them pruned, 0 failed" in told
    (best,) = other.glob("sweeps/*/best.yaml")
    assert "secret" not in best.read_text() + told


def _of(trial: FrozenTrial, group: int) -> bool:
    """Whether the process that runs a trial belongs to a process group."""
    pid = trial.user_attrs.get("process", {}).get("process.pid")
    try:
        return pid is not None and os.getpgid(int(pid)) == group
    except ProcessLookupError:
        return False
