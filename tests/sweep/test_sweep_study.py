"""Trials shared by several processes: none lost or counted twice, whichever is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from pipeline.errors import InputError, Stopped
from pipeline.sections import Sweep
from pipeline.sweep import sharing, study
from pipeline.tracking import processes

pytestmark = pytest.mark.slow

WORKER = """
import sys
sys.path.insert(0, {tests!r})
import test_sweep_study as t
t.work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
"""


def slow(trial: optuna.Trial, seconds: float) -> float:
    x = trial.suggest_float("x", 0, 1)
    time.sleep(seconds)
    return x


def work(storage: str, total: int, seconds: float) -> None:
    opened = study.open_study(Sweep(storage=storage, heartbeat_s=1), 0, "s")
    sharing.run_trials(opened, lambda trial: slow(trial, seconds), total)


def start(storage: str, total: int, seconds: float) -> subprocess.Popen[bytes]:
    code = WORKER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, storage, str(total), str(seconds)])


def trials(storage: str) -> list[optuna.trial.FrozenTrial]:
    return study.open_study(Sweep(storage=storage), 0, "s").get_trials()


def test_four_workers_and_one_is_killed(cwd: Path) -> None:
    storage = "sqlite"
    workers = [start(storage, 12, 1.5) for _ in range(4)]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.05)
        mine = [
            trial
            for trial in (trials(storage) if (cwd / "sweeps").exists() else [])
            if trial.state == TrialState.RUNNING
            and trial.user_attrs.get("process", {}).get("process.pid") == str(workers[0].pid)
        ]
        if mine:
            break
    workers[0].kill()
    assert [worker.wait(120) for worker in workers[1:]] == [0, 0, 0]
    actual = trials(storage)
    assert [trial.number for trial in actual] == list(range(12))
    assert {trial.state for trial in actual} == {TrialState.COMPLETE}
    (killed,) = [trial for trial in actual if trial.number == mine[0].number]
    assert killed.user_attrs["deaths"] == 1
    assert killed.user_attrs["process"]["process.pid"] != str(workers[0].pid)
    if mine[0].params:
        assert killed.params == mine[0].params, "as it was"


def distance(trial: optuna.Trial) -> float:
    return (trial.suggest_float("x", 0, 1) - 0.3) ** 2


def test_a_resumed_study_goes_on_as_a_whole_one(cwd: Path, monkeypatch: Any) -> None:
    def swept(name: str, *totals: int) -> list[dict[str, float]]:
        for total in totals:
            opened = study.open_study(Sweep(), 0, name)
            sharing.run_trials(opened, distance, total)
        return [trial.params for trial in opened.get_trials()]

    whole = swept("whole", 25)
    assert swept("parts", 3, 14, 25) == whole
    assert len({params["x"] for params in whole}) == 25


def test_states_are_counted_as_they_should(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 1:
            raise Stopped("pruned after epoch 1")
        if trial.number == 2:
            raise MemoryError("no room")
        return 0.5

    sharing.run_trials(opened, objective, 4)
    actual = opened.get_trials()
    states = [trial.state.name for trial in actual]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert "MemoryError: no room" in actual[2].user_attrs["error"]
    assert "Traceback" in actual[2].user_attrs["error"]
    assert len(sharing.finished(actual)) == 4
    sharing.run_trials(opened, objective, 4)
    assert len(opened.get_trials()) == 4, "all there already"


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(cwd: Path) -> None:
    code = "import test_sweep_study as t; t.deadly()"
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests.parent}:{tests.parents[1]}"}
    for _ in range(sharing.DEATHS):
        done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, check=False)
        assert done.returncode == -9
    opened = study.open_study(Sweep(), 0, "s")
    sharing.run_trials(opened, lambda trial: 1.0, 3)
    states = Counter(trial.state.name for trial in opened.get_trials())
    assert states == {"FAIL": 1, "COMPLETE": 2}
    assert "killed 3 times: too little memory?" in opened.get_trials()[0].user_attrs["error"]


def deadly() -> None:
    def objective(trial: optuna.Trial) -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0.0

    sharing.run_trials(study.open_study(Sweep(), 0, "s"), objective, 3)


def test_a_worker_that_is_asked_to_stop_leaves_its_trial_to_others(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")

    def interrupted(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0, 1)
        sys.exit(143)

    with pytest.raises(SystemExit):
        sharing.run_trials(opened, interrupted, 2)
    (left,) = opened.get_trials()
    assert left.state == TrialState.WAITING
    sharing.run_trials(opened, lambda trial: trial.suggest_float("x", 0, 1), 2)
    first, _ = opened.get_trials()
    assert first.params == left.params
    assert "deaths" not in first.user_attrs


def test_two_machines_do_not_start_one_too_many(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")
    lock = sharing.lock_of("s")
    for _ in range(2):  # another machine takes the last two places in the same moment
        opened.ask()
    with lock:
        objective = sharing._owned(lambda trial: 1.0, opened, lock, 2)
        opened.optimize(objective, n_trials=1, catch=(Exception,))
    surplus = opened.get_trials()[2]
    assert surplus.state == TrialState.FAIL
    assert sharing.finished([surplus]) == []


def test_two_machines_that_queue_the_same_trial_run_it_once(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")
    for _ in range(2):  # neither sees the other's
        opened.enqueue_trial({"x": 0.5}, user_attrs={"kind": "current"})
    sharing.run_trials(opened, lambda trial: trial.suggest_float("x", 0, 1), 3)
    counted = sharing.finished(opened.get_trials())
    assert len(counted) == 3
    assert [trial.params["x"] for trial in counted].count(0.5) == 1


def missed_heartbeats(trial: optuna.Trial) -> None:
    """Do what another machine does with the trial of a sleeping one."""
    there = study.open_study(Sweep(), 0, "s")
    there.tell(trial.number, state=TrialState.FAIL)
    optuna.storages.RetryHeartbeatStaleTrialCallback()(there, there.get_trials()[trial.number])


@pytest.mark.parametrize("then", ["reports", "answers", "fails", "is pruned"])
def test_a_machine_that_slept_gives_up_the_trial_that_another_took(
    cwd: Path, then: str, capsys: Any
) -> None:
    opened = study.open_study(Sweep(), 0, "s")

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 0:
            missed_heartbeats(trial)
            if then == "reports":
                trial.report(1.0, 0)
            if then == "fails":
                raise MemoryError("no room")
            if then == "is pruned":
                raise Stopped("pruned after epoch 1")
        return x

    sharing.run_trials(opened, objective, 3)
    actual = opened.get_trials()
    assert [trial.state.name for trial in actual] == ["FAIL"] + ["COMPLETE"] * 3
    assert actual[1].params == actual[0].params, "taken up"
    assert [trial.number for trial in sharing.finished(actual)] == [1, 2, 3]
    assert "trial 0 was taken over by another machine" in capsys.readouterr().out


def test_a_machine_that_slept_stops_when_it_is_asked_to(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")

    def objective(trial: optuna.Trial) -> float:
        missed_heartbeats(trial)
        sys.exit(143)

    with pytest.raises(SystemExit):
        sharing.run_trials(opened, objective, 3)
    assert [trial.state.name for trial in opened.get_trials()] == ["FAIL", "WAITING"]


@pytest.mark.timeout(60)
def test_the_last_trial_of_a_machine_that_went_down_is_taken_up(
    cwd: Path, monkeypatch: Any
) -> None:
    opened = study.open_study(Sweep(heartbeat_s=1), 0, "s")
    lost = opened.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    there = processes.identity() | {"process.host": "there", "since": str(lost.datetime_start)}
    lost.set_user_attr("process", there)
    opened._storage._backend.record_heartbeat(lost._trial_id)
    monkeypatch.setattr(sharing, "_is_local", lambda study: False)
    sharing.run_trials(opened, lambda trial: trial.suggest_float("x", 0, 1), 1)
    actual = opened.get_trials()
    assert [trial.state.name for trial in actual] == ["FAIL", "COMPLETE"]
    assert actual[1].params == lost.params


def test_a_trial_put_back_is_not_taken_from_the_machine_that_runs_it_now(
    cwd: Path, monkeypatch: Any
) -> None:
    opened = study.open_study(Sweep(), 0, "s")
    gone = subprocess.Popen(["true"])
    owner = processes.identity() | {"process.pid": str(gone.pid)}
    trial = opened.ask()
    trial.set_user_attr("process", owner | {"since": str(trial.datetime_start)})
    gone.wait()
    sharing.put_back(opened)
    assert opened.get_trials()[0].state == TrialState.WAITING
    # Another machine takes it, and has not said so yet.
    monkeypatch.setattr(sharing, "_is_local", lambda study: False)
    opened.ask()
    sharing.put_back(opened)
    assert opened.get_trials()[0].state == TrialState.RUNNING


def test_queued_once(cwd: Path) -> None:
    opened = study.open_study(Sweep(), 0, "s")
    for _ in range(2):
        sharing.add_once(opened, {"x": 0.5}, "current")
    sharing.run_trials(opened, lambda trial: trial.suggest_float("x", 0, 1), 1)
    sharing.add_once(opened, {"x": 0.5}, "current")
    (trial,) = opened.get_trials()
    assert (trial.params, trial.user_attrs["kind"]) == ({"x": 0.5}, "current")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage": "mysql"}, "sweep.storage must be sqlite or a database's URL"),
        ({"storage": "nodb://h/d"}, "sweep.storage"),
        ({"storage": "postgresql+psycopg://127.0.0.1:1/d"}, "in sweep.storage does not answer"),
    ],
)
def test_storages_that_do_not_answer(cwd: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        study.open_study(Sweep(**changes), 0, "s")
    assert "\n" not in str(caught.value)
