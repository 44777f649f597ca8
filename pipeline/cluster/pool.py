"""Do tasks on a Ray cluster, their results in order.

tasks -> results. A worker that dies, with its node or alone, costs time and no result.
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
    with connected(config) as ray:
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
