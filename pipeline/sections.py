"""The sections of params.yaml that do not affect results.

Sections that a stage reads are declared with the stage. Has no heavy imports.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline.errors import InputError
from pipeline.serving.settings import DEFAULTS, MAX_REQUEST_MB
from pipeline.settings import AUTO, setting


class Sampler(StrEnum):
    """Algorithm that chooses the settings of trials."""

    tpe = "tpe"
    random = "random"
    grid = "grid"


class Pruner(StrEnum):
    """Algorithm that stops unpromising trials early."""

    median = "median"
    hyperband = "hyperband"
    wilcoxon = "wilcoxon"
    none = "none"


@dataclass
class Tracking:
    """Section `tracking`."""

    enabled: bool = setting(True, "Log runs to MLflow.")
    uri: str | None = setting(
        None, "Tracking store; null uses $MLFLOW_TRACKING_URI, or mlflow.db in the project."
    )
    experiment: str = setting("pipeline", "Name of the MLflow experiment.")
    log_model: bool = setting(True, "Log the fine-tuned model.", advanced=True)
    port: int = setting(5000, "Port of the MLflow UI.", least=1, most=65535)


@dataclass
class Sweep:
    """Section `sweep`."""

    n_trials: int = setting(
        20, "Total number of trials; running again resumes after the finished ones.", least=1
    )
    cuts: Any = setting(
        "blocks",
        "Cuts to try: blocks for the start of every block, all for every cut point, or a list of "
        "values for finetune.cut. Head only is always included.",
    )
    space: dict[str, Any] = setting(
        {},
        "Settings to vary, nested like params.yaml: a list of choices, or {low, high} with "
        "`log: true` or a `step`. By default the learning rate of fine-tuning, 1e-5 to 1e-2.",
    )
    study: str | None = setting(
        None, "Prefix of the study's name; null uses data and backbone.", advanced=True
    )
    storage: str = setting(
        "sqlite", "`sqlite`, or the URL of a database shared by several machines."
    )
    objectives: list[str] = setting(
        ["val_score"],
        "Objectives: val_score, val_loss or val_accuracy (for numbers val_r2) first, then others "
        "of these, ms_per_image (forward pass on this machine) or parameters. With several, the "
        "result is a Pareto front, and no trial is pruned.",
        advanced=True,
    )
    folds: int = setting(
        1,
        "Number of cross-validation folds of train and val together; each trial is trained as "
        "often. Useful with few images, and needed for sweep.pruner=wilcoxon.",
        least=1,
        advanced=True,
    )
    patience: int | None = setting(
        None, "Stop after this many trials without improvement.", least=1, advanced=True
    )
    soup: bool = setting(
        True,
        "Try averaging the weights of the best trials at the end (model soup), for which up to "
        "five are trained again.",
        advanced=True,
    )
    sampler: Sampler = setting(
        Sampler.tpe,
        "tpe learns from earlier trials, random does not, grid tries every combination once and "
        "needs lists in sweep.space.",
        advanced=True,
    )
    pruner: Pruner = setting(
        Pruner.median,
        "median compares scores at each epoch, hyperband gives many trials few epochs, wilcoxon "
        "compares trials by fold, none lets every trial finish.",
        advanced=True,
    )
    workers: int = setting(1, "Number of worker processes on this machine.", least=1)
    heartbeat_s: int = setting(
        60,
        "Interval of heartbeats to a shared database in seconds; after two missed heartbeats "
        "another worker takes over a trial.",
        least=1,
        advanced=True,
    )

    def check(self, name: str) -> None:
        """Check the study's name, which names a folder."""
        if self.study is not None and not re.fullmatch(r"[\w][\w.-]{0,99}", self.study):
            raise InputError(
                f"{name}.study may have letters, digits, dots, dashes and underscores, got "
                f"{self.study!r}: it names a folder in sweeps/"
            )


@dataclass
class Promote:
    """Section `promote`."""

    name: str = setting("classifier", "Name of the registered model.")
    metric: str = setting(
        AUTO, "Metric for comparing candidate and champion; `auto` is the task's first."
    )
    margin: float = setting(
        0.01,
        "Largest tolerated disadvantage to the champion; the whole paired 95 % interval of the "
        "difference must be within it.",
        least=0,
    )
    max_calibration_error: float | None = setting(
        0.1, "Highest allowed calibration error; null for no limit.", least=0, most=1
    )
    min_recall: float | None = setting(
        0.5, "Lowest allowed recall of any class; null for no limit.", least=0, most=1
    )


@dataclass
class Serve:
    """Section `serve`."""

    model: str | None = setting(
        None,
        "Model to serve: models:/NAME/2, models:/MODEL_ID or a .keras file; null serves the "
        "champion.",
    )
    host: str = setting(
        "127.0.0.1", "Address to listen on; 0.0.0.0 makes it reachable from other machines."
    )
    port: int = setting(5001, "Port to listen on.", least=1, most=65535)
    workers: int = setting(
        1, "Number of server processes, each using `threads` processors.", least=1
    )
    token: str | None = setting(
        None,
        "Token that requests must have (Authorization: Bearer TOKEN); ${oc.env:SERVE_TOKEN} reads "
        "it from the environment.",
    )
    timeout_s: int = setting(
        60, "Time limit of a request in seconds, also when the server stops.", least=1
    )
    max_request_mb: int = setting(
        MAX_REQUEST_MB, "Maximum size of a request, also when decompressed.", least=1
    )
    unknown: float = setting(
        DEFAULTS["unknown"],
        "Fraction of ordinary images that may be flagged as unknown in serve, predict and "
        "evaluate; larger values catch more unusual images.",
        least=0,
        below=1,
    )
    coverage: float = setting(
        DEFAULTS["coverage"],
        "Target coverage of prediction sets in serve and evaluate; needs "
        "prepare.calibration_fraction.",
        above=0,
        below=1,
    )

    def check(self, name: str) -> None:
        """Reject an empty token, which every request would have."""
        if self.token == "":
            raise InputError(f"{name}.token must not be empty: set it, or null for no token")
