"""Plan every value of params.yaml for these images and this network, and the cost of a run.

source + backbone -> sections of settings with reasons, minutes, disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.features import augmentation
from pipeline.finetuning import recipe
from pipeline.finetuning.settings import Config as Finetune
from pipeline.networks.trust.judging import COVERAGE, UNKNOWN
from pipeline.settings import AUTO
from pipeline.setup import machine
from pipeline.setup.source import UNEVEN, Looked
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

_START_S = 8.0
"""Start of a stage: Python, TensorFlow, MLflow."""
_DRAW_S = 6.0
"""Plots and intervals in evaluate."""
_STAGES = 5
_MAX_REGRESSIONS = 100
_MAX_REGRESSION = 20_000
_BACKWARD = 3.0
"""Cost of a training step, in forward passes."""


Section = dict[str, tuple[Any, str]]
"""A section of params.yaml: setting -> value, and its reason or an empty text."""


@dataclass(frozen=True)
class Plan:
    """Content of params.yaml, and the cost of a run.

    Attributes:
        sections: Name -> section, in order; "" holds the settings outside sections.
        seconds: Expected time of `dvc repro` on this machine, at most.
        frozen_seconds: The same without fine-tuning.
        megabytes: Expected disk space, including DVC's cache.
    """

    sections: dict[str, Section]
    seconds: float
    frozen_seconds: float
    megabytes: float


@dataclass(frozen=True)
class Network:
    """The backbone of the plan.

    Attributes:
        section: Section `backbone`.
        reason: Reason for this network.
        model: The network for this image size.
        size: Side of the images in px.
        ms_per_image: Milliseconds per image of a forward pass on this machine.
        mirrored: True if flips are safe, and an explanation.
    """

    section: dict[str, str]
    reason: str
    model: keras.Model
    size: Derived
    ms_per_image: float
    mirrored: tuple[bool, str]


def plan(looked: Looked, network: Network, seed: int, threads: int) -> Plan:
    """Derive all values for a source and a network."""
    size, mirrored = network.size, network.mirrored
    train = looked.survey.count("train")
    views = augmentation.views_for(train)
    rate_of_task = looked.survey.task.rate
    chosen, derived = recipe.derive(Finetune(), train, network.model, rate=rate_of_task)
    cut, epochs, rate = (derived[f"finetune.{name}"] for name in ("cut", "epochs", "learning_rate"))
    fraction: Section = {}
    if not looked.survey.splits:
        fraction = {"train_fraction": (0.7, "0.15 for val, the rest for test")}
    balance = _balance(looked.survey.imbalance) if looked.survey.classes else ""
    cores = "cores of this machine; results depend on it in the last bits"
    sections: dict[str, Section] = {
        "": {"seed": (seed, ""), "threads": (threads, cores)},
        "data": {n: (value, looked.reasons.get(n, "")) for n, value in looked.settings.items()},
        "backbone": {
            n: (value, network.reason if n == "use" else "") for n, value in network.section.items()
        },
        "head": _head(train, len(looked.survey.classes) if looked.survey.task.several else 1),
        "augment": {
            "use": ("flip_crop" if mirrored[0] else "auto", mirrored[1]),
            "views": (views.value, views.reason),
        },
        "forward": {"engine": (AUTO, "by the amount of work")},
        "prepare": {
            "image_size": (size.value, size.reason),
            **fraction,
            "exclude": ("conf/exclude.csv", "paths of images to exclude"),
        },
        "extract_features": {"batch_size": (32, "")},
        "train_head": {"class_weight": (None, balance)},
        "finetune": {
            "cut": (AUTO, f"{cut.value}, or a higher one if the head is hardly ever wrong"),
            "epochs": (AUTO, f"at most {epochs.value}: {epochs.reason}"),
            "learning_rate": (rate.value, rate.reason),
        },
        "evaluate": {"split": ("test", "")},
        "serve": {
            "unknown": (UNKNOWN, "fraction of ordinary images that may be flagged as unknown"),
            "coverage": (
                COVERAGE,
                "target coverage of prediction sets (needs prepare.calibration_fraction)",
            ),
        },
        "sweep": {"n_trials": (20, "number of trials for make sweep")},
    }
    passes, tuned, megabytes = _work(
        looked, network.model, chosen, int(views.value), int(size.value)
    )
    base = passes * network.ms_per_image / 1000 + _STAGES * _START_S + _DRAW_S
    return Plan(sections, base + tuned * network.ms_per_image / 1000, base, megabytes)


def _balance(imbalance: float) -> str:
    if imbalance < UNEVEN:
        return (
            f"classes are balanced enough (largest/smallest {imbalance:.1f}); set `balanced` if "
            "rare classes matter as much"
        )
    return f"set `balanced` if rare classes matter as much (largest/smallest {imbalance:.1f})"


def _head(images: int, regressions: int) -> Section:
    """Choose a head; a regression needs all features in memory at once."""
    if regressions > _MAX_REGRESSIONS:
        return {"use": ("linear", f"{regressions} labels, in batches")}
    if images > _MAX_REGRESSION:
        return {"use": ("linear", f"{images} training images, in batches")}
    reason = "a linear model that fits in seconds and is a strong starting point for fine-tuning"
    return {"use": ("logistic", reason)}


def _work(
    looked: Looked, model: keras.Model, finetune: Finetune, views: int, size_px: int
) -> tuple[float, float, float]:
    """Return forward passes without and for fine-tuning, and megabytes on disk."""
    from pipeline.features import cuts

    at = cuts.resolve(model, finetune.cut, finetune.batch_norm == "train").at
    (point,) = [point for point in cuts.describe(model) if point.name == at]
    train, val, test = (looked.survey.count(split) for split in ("train", "val", "test"))
    every, seen = train + val + test, train * views
    above = 1 - point.flops_below
    passes = every + (seen - train) + test
    tuning = (seen + val) * point.flops_below
    tuning += finetune.epochs * above * (_BACKWARD * train + val)
    width = 4 * math.prod(model.output_shape[1:])
    pixels, features = 3 * every * size_px**2, width * (every + seen - train)
    parameters = 4 * model.count_params()
    # If files cannot be shared, outputs are stored twice, once by DVC, and features once more.
    copies = 1 if machine.shares_files() else 2
    stored = copies * (pixels + features + parameters) + (seen + val) * point.bytes_per_image
    stored += features * (copies - 1)
    return passes, tuning, stored / 1e6
