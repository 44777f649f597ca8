"""Processes on the nodes of a Ray cluster, such as the workers of a sweep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_GONE_S = 10.0


class Nodes:
    """The nodes of a cluster, on which processes can be started."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray

    @property
    def alive(self) -> dict[str, str]:
        """Map the id of each node that answers to its host."""
        return {
            node["NodeID"]: node["NodeManagerHostname"]
            for node in self._ray.nodes()
            if node["Alive"]
        }

    def start(self, node: str, words: list[str], environment: dict[str, str], log: Path) -> Process:
        """Start Python on a node, in the folder of this process.

        Args:
            node: Id of the node.
            words: Arguments of Python.
            environment: Added to that of the node.
            log: Receives the output; on the node, if it does not share the folder.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        starter = self._ray.remote(_Starter).options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        )
        actor = starter.remote(words, environment, str(Path.cwd()), str(log))
        return Process(self._ray, actor, node)


class _Starter:
    """Actor on a node: the parent of a process."""

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

    def output(self) -> str:
        return self._log.read_text(errors="replace")


class Process:
    """A process on a node, used like one of this machine.

    Attributes:
        node: Id of the node.
        returncode: Exit code; None while it runs, -9 if its node is gone.
    """

    def __init__(self, ray: Any, actor: Any, node: str) -> None:
        self._ray, self._actor, self.node = ray, actor, node
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Check if it has ended."""
        if self.returncode is None:
            self.returncode = self._call(self._actor.poll, gone=-9)
        return self.returncode

    def terminate(self) -> None:
        """Ask it to end."""
        self._call(self._actor.terminate, gone=None)

    def wait(self) -> None:
        """Release its parent."""
        self._ray.kill(self._actor)

    def output(self) -> str:
        """Return its output; empty if its node is gone."""
        return str(self._call(self._actor.output, gone=""))

    def _call(self, method: Any, gone: Any) -> Any:
        try:
            return self._ray.get(method.remote(), timeout=_GONE_S)
        except (self._ray.exceptions.RayActorError, self._ray.exceptions.GetTimeoutError):
            return gone
