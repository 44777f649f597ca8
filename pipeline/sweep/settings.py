"""Sections `sweep`, `sampler` and `pruner`. Imports nothing heavy."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Config:
    """Section `sweep`.

    Attributes:
        n_trials: How many trials there are in the end; running again goes on from those
            that have finished.
        cuts: Where to cut: `blocks` for the beginning of every block, `all` for every cut
            point, or a list of what `finetune.cut` takes. Head only is always tried.
        space: What else is varied, nested like params.yaml: a list of choices, or
            {low, high} with `log: true` or a `step` where wanted. If empty, the learning
            rate of fine-tuning, from 1e-5 to 1e-2.
        study: First part of the study's name; null for the data's and the backbone's.
        storage: `sqlite`, `journal`, or the URL of a database that several machines share.
        workers: Processes on this machine.
        heartbeat_s: How often a worker tells a database that it is alive; after two
            missing ones its trial is taken up by another.
    """

    n_trials: int = 20
    cuts: Any = "blocks"
    space: dict[str, Any] = field(default_factory=dict)
    study: str | None = None
    storage: str = "sqlite"
    workers: int = 1
    heartbeat_s: int = 60

    def described(self) -> dict[str, Any]:
        """The settings, without a database's user and password."""
        return {**asdict(self), "storage": self.storage.rpartition("@")[2]}


@dataclass
class Sampler:
    """Section `sampler`: a class of optuna.samplers and its arguments."""

    name: str = "TPESampler"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Pruner:
    """Section `pruner`: a class of optuna.pruners and its arguments."""

    name: str = "MedianPruner"
    options: dict[str, Any] = field(default_factory=dict)
