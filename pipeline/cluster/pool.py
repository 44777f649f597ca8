"""Do tasks on a cluster, their results in order; processes on its nodes. The only file of Ray.

tasks -> results. A worker that dies, with its node or alone, costs time and no result.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pipeline.cluster.settings import Config
from pipeline.errors import InputError, shortened

Task = TypeVar("Task")
Result = TypeVar("Result")

_DEATHS = 3
"""A task whose worker dies this often is given up: most likely for lack of memory."""
_SILENCE_S = 60.0
_AHEAD = 2
_GONE_S = 10.0


@contextmanager
def _connected(config: Config) -> Iterator[Any]:
    """Ray, connected to the cluster that the config names and to no other."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray hides GPUs from whoever asked for none; a forward pass by Keras uses what is there.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "cluster.use=ray needs Ray, not installed: pip install ray, or set cluster.use=none"
        ) from error
    inside = ray.is_initialized()
    if not inside:
        own = config.address == "local"
        if not own:
            _insist_on_an_answer(config.address)  # Ray would wait for minutes
        ray.init(
            address=config.address,
            include_dashboard=False if own else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield ray
    finally:
        if not inside:
            ray.shutdown()


def _insist_on_an_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _GONE_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f"cluster.address must be local or HOST:PORT of a running Ray cluster, got {address}: "
            f"{error}; ray start --head starts one and prints its address"
        ) from error


class _Worker:
    """What runs in an actor. A new one, in the place of one that died, makes its function anew."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        os.chdir(folder)  # a node begins where it was started; paths are the project's
        self._make = make
        self._function: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Answers once the actor, or the one in its place, is there."""

    def do(self, task: Any) -> Any:
        if self._function is None:
            self._function = self._make()
        return self._function(task)


def ordered(
    config: Config,
    make: Callable[[], Callable[[Task], Result]],
    tasks: Iterable[Task],
    *,
    threads: int,
) -> Iterator[Result]:
    """Do tasks on all nodes and yield their results in the order of the tasks.

    Args:
        config: Section `cluster`.
        make: Called once in each worker; gives what a task is done by. Both are pickled.
        tasks: Small; a few at a time are under way.
        threads: Processors that a worker needs.

    Raises:
        InputError: There is no such cluster, it is too small, or a task kills its workers.
    """
    with _connected(config) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        able = sum(int(node.get("CPU", 0) // threads) for node in nodes)
        if not able:
            raise InputError(
                f"a worker needs threads={threads} processors, no node of the cluster has as many: "
                "lower threads, which changes last bits, or add nodes"
            )
        actor = ray.remote(_Worker).options(num_cpus=threads, max_restarts=-1, max_task_retries=0)
        here = str(Path.cwd())
        made = [actor.remote(make, here) for _ in range(min(config.workers or able, able))]
        try:
            yield from _results(ray, made, enumerate(tasks))
        finally:
            for one in made:
                ray.kill(one)


def _results(ray: Any, idle: list[Any], tasks: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Results in order; no more than a few tasks are ahead of the one that is waited for."""
    most, last, wanted = _AHEAD * len(idle), time.monotonic(), 0
    again: list[tuple[int, Any]] = []
    running: dict[Any, tuple[Any, tuple[int, Any] | None]] = {}
    deaths: Counter[int] = Counter()
    done: dict[int, Any] = {}
    while True:
        under_way = len(done) + sum(one is not None for _, one in running.values())
        while idle and (again or under_way < most):
            numbered = again.pop() if again else next(tasks, None)
            if numbered is None:
                break
            actor = idle.pop()
            running[actor.do.remote(numbered[1])] = actor, numbered
            under_way += 1
        if not any(numbered for _, numbered in running.values()) and not again:
            break
        for ref in ray.wait(list(running), timeout=1)[0]:
            last = time.monotonic()
            actor, numbered = running.pop(ref)
            if numbered is None:
                idle.append(actor)
                continue
            try:
                done[numbered[0]] = _result(ray, ref)
                idle.append(actor)
            except ray.exceptions.RayActorError as error:
                if "creation task" in str(error):  # it never began, and never will
                    raise InputError(
                        "every node needs this project's folder at the same place, and its "
                        f"environment; a worker could not start: {_last_line(error)}"
                    ) from error
                deaths[numbered[0]] += 1
                if deaths[numbered[0]] >= _DEATHS:
                    raise InputError(
                        f"a task must not kill its workers, one killed {_DEATHS}, most likely for "
                        "lack of memory: lower extract_features.batch_size, or give nodes more"
                    ) from error
                again.append(numbered)
                running[actor.ready.options(max_task_retries=-1).remote()] = actor, None
        if (silent := time.monotonic() - last) > _SILENCE_S:
            tqdm.write(f"no worker of the cluster has answered for {silent:.0f} s")
            last = time.monotonic()
        while wanted in done:
            yield done.pop(wanted)
            wanted += 1
    yield from (done[place] for place in sorted(done))


def _last_line(error: Exception) -> str:
    return shortened(str(error).strip().splitlines()[-1])


def _result(ray: Any, ref: Any) -> Any:
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause)) from error
        raise


class Nodes:
    """The nodes of a cluster, on which processes can be started.

    Args:
        config: Section `cluster`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection = _connected(config)

    def __enter__(self) -> Nodes:
        self._ray = self._connection.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)

    @property
    def alive(self) -> dict[str, str]:
        """Id of each node that answers -> its host."""
        return {
            node["NodeID"]: node["NodeManagerHostname"]
            for node in self._ray.nodes()
            if node["Alive"]
        }

    def start(self, node: str, words: list[str], environment: dict[str, str], log: Path) -> Process:
        """Start Python on a node, in the folder of this process.

        Args:
            node: Its id.
            words: What Python is given.
            environment: Beside that of the node.
            log: Gets what it says; on the node, if that does not share the folder.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        starter = self._ray.remote(_Starter).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )
        actor = starter.remote(words, environment, str(Path.cwd()), str(log))
        return Process(self._ray, actor, node)


class _Starter:
    """What runs in an actor on a node: the parent of a process."""

    def __init__(
        self, words: list[str], environment: dict[str, str], folder: str, log: str
    ) -> None:
        Path(folder, log).parent.mkdir(parents=True, exist_ok=True)
        self._log = Path(folder, log)
        with self._log.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, *words],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def poll(self) -> int | None:
        return self._child.poll()

    def terminate(self) -> None:
        self._child.terminate()
        self._child.wait()

    def said(self) -> str:
        return self._log.read_text(errors="replace")


class Process:
    """A process on a node, to be used like one of this machine.

    Attributes:
        node: Id of the node.
        returncode: What it ended with; None while it runs, -9 if its node is gone.
    """

    def __init__(self, ray: Any, actor: Any, node: str) -> None:
        self._ray, self._actor, self.node = ray, actor, node
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Ask whether it has ended."""
        if self.returncode is None:
            self.returncode = self._asked(self._actor.poll, gone=-9)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._asked(self._actor.terminate, gone=None)

    def wait(self) -> None:
        """Let its parent go."""
        self._ray.kill(self._actor)

    def said(self) -> str:
        """What it wrote; nothing if its node is gone."""
        return str(self._asked(self._actor.said, gone=""))

    def _asked(self, method: Any, gone: Any) -> Any:
        try:
            return self._ray.get(method.remote(), timeout=_GONE_S)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
            return gone
