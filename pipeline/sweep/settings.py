"""Sections `sweep`, `sampler` and `pruner`. Imports nothing heavy."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.settings import setting
from pipeline.storage import addresses


@dataclass
class Config:
    """Section `sweep`."""

    n_trials: int = setting(
        20,
        "How many trials there are in the end: running again continues after those that have "
        "finished.",
        least=1,
    )
    cuts: Any = setting(
        "blocks",
        "Where to cut: blocks for the beginning of every block, all for every cut point, or a "
        "list of what finetune.cut takes. Head only is always tried.",
    )
    space: dict[str, Any] = setting(
        {},
        "What else is varied, nested like params.yaml: a list of choices, or {low, high} with "
        "`log: true` or a `step`. If empty, the learning rate of fine-tuning, 1e-5 to 1e-2.",
    )
    study: str | None = setting(
        None, "First part of the study's name; null for the data's and the backbone's."
    )
    storage: str = setting(
        "sqlite", "sqlite, journal, or the URL of a database that several machines share."
    )
    objectives: list[str] = setting(
        ["val_score"],
        "What trials are judged by: val_score, val_loss or val_accuracy, then others of these, "
        "ms_a_picture (milliseconds of the forward pass on this machine) or parameters. With "
        "several, the sweep ends with those that no other beats in all, and prunes none.",
    )
    folds: int = setting(
        1,
        "With more than 1, a trial is judged by cross-validation on train and val together: "
        "trained so many times. For few pictures, and pruner.use=wilcoxon.",
        least=1,
    )
    patience: int | None = setting(
        None, "End when so many trials in a row brought nothing better.", least=1
    )
    soup: bool = setting(
        True,
        "Whether the average of the best trials is tried at the end, for which up to five are "
        "trained once more.",
    )
    workers: int = setting(1, "Processes on this machine.", least=1)
    heartbeat_s: int = setting(
        60,
        "How often a worker tells a database that it is alive; after two missing ones another "
        "worker takes up its trial.",
        least=1,
    )

    def described(self) -> dict[str, Any]:
        """The settings, without a database's password."""
        return {**asdict(self), "storage": addresses.shown(self.storage)}


@dataclass
class Sampler:
    """Section `sampler`."""

    use: str = setting("tpe", "Who draws the settings of a trial.", group="sampler")
    name: str = setting("TPESampler", "A class of optuna.samplers.")
    options: dict[str, Any] = setting({}, "Its arguments.")


@dataclass
class Pruner:
    """Section `pruner`."""

    use: str = setting("median", "Who ends trials that promise little.", group="pruner")
    name: str = setting("MedianPruner", "A class of optuna.pruners.")
    options: dict[str, Any] = setting({}, "Its arguments.")
