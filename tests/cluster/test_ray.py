"""A real Ray cluster of two nodes on this machine: the bytes of one process, whatever dies."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import Run, frozen_part

from pipeline.cluster import pool
from pipeline.cluster.connection import Config
from pipeline.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

ray = pytest.importorskip("ray")
# Workers cannot import a test module by its name.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
NODE = {"num_cpus": 2, "object_store_memory": 100_000_000}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {**NODE, "include_dashboard": False}
    with chdir("/"):  # nodes are started anywhere, not in the project
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture
def config(cluster: Any) -> Config:
    return Config("ray", cluster.address)


def squares() -> Any:
    return lambda task: (task**2, os.getpid())


def test_results_come_in_order_from_all_nodes(config: Config) -> None:
    actual = list(pool.ordered(config, squares, range(40), threads=2))
    assert [square for square, _ in actual] == [task**2 for task in range(40)]
    assert len({process for _, process in actual}) == 2
    assert list(pool.ordered(config, squares, [], threads=1)) == []


def slowly() -> Any:
    def item(task: int) -> tuple[int, int]:
        time.sleep(0.3)
        return task, os.getpid()

    return item


def test_a_killed_worker_costs_no_result(config: Config) -> None:
    actual = pool.ordered(config, slowly, range(50), threads=2)
    _, process = next(actual)
    os.kill(process, signal.SIGKILL)
    rest = list(actual)
    assert [task for task, _ in rest] == list(range(1, 50))
    assert len({process for _, process in rest}) > 1


def test_a_node_that_goes_away_costs_no_result(cluster: Any, config: Config) -> None:
    extra = cluster.add_node(**NODE)
    actual = pool.ordered(config, slowly, range(30), threads=2)
    first = [next(actual) for _ in range(4)]
    cluster.remove_node(extra, allow_graceful=False)
    assert [task for task, _ in [*first, *actual]] == list(range(30))


def deadly() -> Any:
    return lambda task: os.kill(os.getpid(), signal.SIGKILL) if task == 3 else task


def refusing() -> Any:
    raise InputError("this node is of another kind")


def test_what_ends_it_in_one_line(config: Config) -> None:
    with pytest.raises(InputError, match="a task killed 3 workers"):
        list(pool.ordered(config, deadly, range(6), threads=1))
    with pytest.raises(InputError, match="this node is of another kind"):
        list(pool.ordered(config, refusing, range(6), threads=1))
    with pytest.raises(InputError, match="a worker needs threads=64 processors"):
        list(pool.ordered(config, squares, range(6), threads=64))


def test_a_node_without_the_project(config: Config) -> None:
    unknown = type(sys)("module_of_this_process_alone")
    exec("def make():\n    return abs", vars(unknown))
    sys.modules[unknown.__name__] = unknown
    with pytest.raises(InputError, match="every node needs this project's folder at the same path"):
        list(pool.ordered(config, unknown.make, range(3), threads=1))


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"needs Ray: pip install ray, or set cluster.use"):
        list(pool.ordered(Config("ray"), squares, [1], threads=1))


def stage(name: str, *words: str) -> list[str]:
    # Keras, and a batch of another size than usual, which gives other last bits.
    own = ["forward.engine=keras", "extract_features.batch_size=7", "threads=1"]
    return [sys.executable, "-m", "pipeline", name, *own, "tracking.enabled=false", *words]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_prepare_and_extraction_give_the_same_bytes(
    clone: Path, cluster: Any, config: Config, run: Run
) -> None:
    spread = ("cluster.use=ray", f"cluster.address={config.address}")
    actual = []
    for words in ((), spread):
        run(clone, "rm", "-rf", ".work/activations")
        for name in ("prepare", "extract_features"):
            done = run(clone, *stage(name, *words), forked=not words)
            assert done.returncode == 0, done.stderr
        both = contents(clone / "outputs/prepare") | contents(clone / "outputs/extract_features")
        actual.append(both)
    assert actual[0] == actual[1]


def test_a_node_with_other_images_is_refused(clone: Path, config: Config, tmp_path: Path) -> None:
    from pipeline.features import spread

    (tmp_path / "summary.json").write_text('{"images_sha256": "other"}')
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8, 3), np.uint8))
    shape = (4, 8, 8, 3)
    images = str(tmp_path / "images.npy")
    words = (frozen_part(), "x", images, shape, "mine", {})
    with pytest.raises(InputError, match=r"images\.npy on .* differs from the one here"):
        list(pool.ordered(config, lambda: spread._worker(*words), [1], threads=1))


def test_a_cluster_that_is_not_there(clone: Path, run: Run) -> None:
    words = ("cluster.use=ray", "cluster.address=localhost:1")
    done = run(clone, *stage("prepare", *words), forked=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: cluster.address must be local")


def test_a_cluster_that_asks_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--num-cpus=1", "--include-dashboard=false", "--object-store-memory=80000000"]
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    folder = tempfile.mkdtemp(dir="/tmp")  # sockets lie below it, whose paths must be short
    started = subprocess.Popen(
        [*command, f"--port={port}", *options, f"--temp-dir={folder}"],
        env={**os.environ, **secret, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    try:
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("localhost", port), 1):
                break
            time.sleep(0.3)
        with pytest.raises(InputError, match="requires a token: set RAY_AUTH_MODE=token"):
            list(pool.ordered(Config("ray", f"localhost:{port}"), squares, [1], threads=1))
    finally:
        for process in [*psutil.Process(started.pid).children(recursive=True), started]:
            process.kill()
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)  # of processes that end as their node is gone


def test_a_sweep_on_two_nodes_one_of_which_goes_away(
    clone: Path, cluster: Any, config: Config, run: Run
) -> None:
    import subprocess

    extra = cluster.add_node(**NODE)
    words = ["cluster.use=ray", f"cluster.address={config.address}", "sweep.n_trials=8"]
    short = ["finetune.epochs=2", "sweep.soup=false", "sweep.heartbeat_s=2"]
    command = [sys.executable, "-m", "pipeline", "sweep", *words, *short]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    sweep = subprocess.Popen(
        command,
        cwd=clone,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = clone / "sweeps"
    while sweep.poll() is None and not list(log.glob("*/worker-2.log")):
        time.sleep(0.2)
    time.sleep(8)
    cluster.remove_node(extra, allow_graceful=False)
    message = sweep.communicate(timeout=400)[0]
    assert sweep.returncode == 0, message
    ended = [line for line in message.replace("\r", "\n").splitlines() if line.startswith("trial ")]
    numbers = [int(line.split()[1].rstrip(":")) for line in ended]
    assert sorted(numbers) == list(range(8)), message
    assert not [p for p in psutil.process_iter(["cmdline"]) if is_worker(p, clone)]


def is_worker(process: psutil.Process, folder: Path) -> bool:
    words = process.info["cmdline"] or []
    return "sweep" in words and process.is_running() and process.cwd() == str(folder)
