"""Run tasks on a Ray cluster, with their results in order.

tasks -> results. A worker that dies, alone or with its node, costs time but no result.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pipeline.cluster.connection import Config, connected
from pipeline.errors import InputError, shortened

Task = TypeVar("Task")
Result = TypeVar("Result")

_DEATHS = 3
"""A task whose worker dies this often is given up: most likely for lack of memory."""
_SILENCE_S = 60.0
_AHEAD = 2


class _Worker:
    """Actor that runs tasks. One that replaces a dead one creates its function again."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], folder: str) -> None:
        os.chdir(folder)  # a node starts elsewhere; paths are relative to the project
        self._make = make
        self._function: Callable[[Any], Any] | None = None

    def ready(self) -> None:
        """Return once the actor, or its replacement, is running."""

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
    """Run tasks on all nodes and yield their results in the order of the tasks.

    Args:
        config: Section `cluster`.
        make: Called once in each worker; returns the function for the tasks. Both are pickled.
        tasks: Small tasks; a few run at a time.
        threads: Processors per worker.

    Raises:
        InputError: There is no such cluster, it is too small, or a task kills its workers.
    """
    with connected(config) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        able = sum(int(node.get("CPU", 0) // threads) for node in nodes)
        if not able:
            raise InputError(
                f"a worker needs threads={threads} processors, and no node of the cluster has as "
                "many: lower threads, which changes the last bits of results, or add nodes"
            )
        actor = ray.remote(_Worker).options(num_cpus=threads, max_restarts=-1, max_task_retries=0)
        here = str(Path.cwd())
        workers = [actor.remote(make, here) for _ in range(min(config.workers or able, able))]
        try:
            yield from _results(ray, workers, enumerate(tasks))
        finally:
            for worker in workers:
                ray.kill(worker)


def _results(ray: Any, idle: list[Any], tasks: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Yield results in order; only a few tasks run ahead of the next result."""
    most, last, wanted = _AHEAD * len(idle), time.monotonic(), 0
    again: list[tuple[int, Any]] = []
    running: dict[Any, tuple[Any, tuple[int, Any] | None]] = {}
    deaths: Counter[int] = Counter()
    done: dict[int, Any] = {}
    while True:
        under_way = len(done) + sum(task is not None for _, task in running.values())
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
                done[numbered[0]] = ray.get(ref)
                idle.append(actor)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError):
                    raise InputError(str(error.cause)) from error
                raise
            except ray.exceptions.RayActorError as error:
                if "creation task" in str(error):  # it never started, and never will
                    reason = shortened(str(error).strip().splitlines()[-1])
                    raise InputError(
                        "every node needs this project's folder at the same path, and its "
                        f"environment; a worker could not start: {reason}"
                    ) from error
                deaths[numbered[0]] += 1
                if deaths[numbered[0]] >= _DEATHS:
                    raise InputError(
                        f"a task killed {_DEATHS} workers, most likely for lack of memory: lower "
                        "extract_features.batch_size, or add memory to the nodes"
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
