"""The sections of params.yaml that no stage reads: no result depends on them.

A section that a stage reads is declared where it is read. Imports nothing heavy.
"""

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import InputError
from pipeline.serving.defaults import DEFAULTS, MAX_REQUEST_MB
from pipeline.settings import setting
from pipeline.storage import addresses


class Sampler(StrEnum):
    """How the settings of a trial are chosen."""

    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(StrEnum):
    """When a trial is ended early."""

    median = "median"
    hyperband = "hyperband"
    wilcoxon = "wilcoxon"
    none = "none"


@dataclass
class Tracking:
    """Section `tracking`."""

    enabled: bool = setting(True, "Whether runs are logged at all.")
    uri: str | None = setting(
        None, "Tracking store; null is $MLFLOW_TRACKING_URI, or else mlflow.db beside dvc.yaml."
    )
    experiment: str = setting("pipeline", "Name of the MLflow experiment.")
    log_model: bool = setting(True, "Whether fine-tuning logs its model.")
    port: int = setting(5000, "Of the UI.", least=1, most=65535)


@dataclass
class Sweep:
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
        "sqlite", "`sqlite`, or the URL of a database that several machines share."
    )
    objectives: list[str] = setting(
        ["val_score"],
        "What trials are judged by: val_score, val_loss or val_accuracy, then others of these, "
        "ms_per_image (milliseconds of the forward pass on this machine) or parameters. With "
        "several, the sweep ends with those that no other beats in all, and prunes none.",
    )
    folds: int = setting(
        1,
        "With more than 1, a trial is judged by cross-validation on train and val together: "
        "trained so many times. For few images, and sweep.pruner=wilcoxon.",
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
    sampler: Sampler = setting(
        Sampler.tpe,
        "tpe learns from the trials so far, random draws blindly, grid tries every combination "
        "once, for which sweep.space needs lists.",
    )
    pruner: Pruner = setting(
        Pruner.median,
        "Ends trials early: median by the score at that epoch, hyperband gives many trials few "
        "epochs, wilcoxon compares trials fold by fold, none lets every trial run to its end.",
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
        return {**asdict(self), "storage": addresses.public(self.storage)}

    def check(self, name: str) -> None:
        """Check what becomes a folder's name."""
        if self.study is not None and not re.fullmatch(r"[\w][\w.-]{0,99}", self.study):
            raise InputError(
                f"{name}.study must be letters, digits, dots, dashes and underscores, got "
                f"{self.study!r}: it names a folder in sweeps/"
            )


@dataclass
class Promote:
    """Section `promote`."""

    name: str = setting("classifier", "Of the registered model.")
    metric: str = setting("accuracy", "By which candidate and champion are compared.")
    margin: float = setting(
        0.01,
        "How much worse than the champion the candidate may be: all of the paired 95 % interval "
        "of the difference must be within it.",
        least=0,
    )
    max_calibration_error: float | None = setting(
        0.1, "The candidate's may not be above; null for no limit.", least=0, most=1
    )
    min_recall: float | None = setting(
        0.5, "No class's recall may be below; null for no limit.", least=0, most=1
    )


@dataclass
class Serve:
    """Section `serve`."""

    model: str | None = setting(
        None, "Such as models:/NAME/2; null is the champion of promote.name."
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 for all, which lets anybody in."
    )
    port: int = setting(5001, "Port to listen on.", least=1, most=65535)
    workers: int = setting(
        1,
        "Processes. Requests share a forward pass within one, and it uses `threads` processors: "
        "more are for machines with many.",
        least=1,
    )
    timeout_s: int = setting(60, "After which a request is given up.", least=1)
    max_request_mb: int = setting(
        MAX_REQUEST_MB, "Maximum size of a request, also decompressed.", least=1
    )
    unknown: float = setting(
        DEFAULTS["unknown"],
        "Share of ordinary images that may be called unknown, here, in predict and in evaluate: "
        "the larger, the fewer strange ones pass.",
        least=0,
        below=1,
    )
    coverage: float = setting(
        DEFAULTS["coverage"],
        "Share of images whose set of labels has the true one, here and in evaluate: needs "
        "prepare.calibration_fraction.",
        above=0,
        below=1,
    )


@dataclass
class Demo:
    """Section `demo`."""

    model: str | None = setting(
        None, "Such as models:/NAME/2; null is the champion of promote.name."
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 for all, which lets anybody in."
    )
    port: int = setting(7860, "Port to listen on.", least=1, most=65535)
