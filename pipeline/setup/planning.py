"""Every value that params.yaml needs for these images and this network, and what to expect.

source + backbone -> sections of settings with reasons, minutes, disk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.features import augmentation
from pipeline.finetuning import recipe
from pipeline.finetuning.settings import Config as Finetune
from pipeline.networks.engines import Engine
from pipeline.networks.trust.judging import COVERAGE, UNKNOWN
from pipeline.setup import machine
from pipeline.setup.source import Looked
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    import keras

_START_S = 8.0
"""Of a stage: Python, TensorFlow, MLflow."""
_DRAW_S = 6.0
"""Of evaluate's plots and intervals."""
_STAGES = 5
_REGRESSED = 20_000
_BACKWARD = 3.0
"""A training step in forward passes."""


@dataclass
class Section:
    """A section of params.yaml.

    Attributes:
        values: Setting -> value.
        reasons: Setting -> why.
    """

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: Any, reason: str = "") -> None:
        """Add a setting."""
        self.values[name] = value
        if reason:
            self.reasons[name] = reason


@dataclass(frozen=True)
class Plan:
    """What `init` writes and says.

    Attributes:
        sections: Name -> section, in order; "" has the settings that belong to none.
        seconds: That `dvc repro` will take on this machine.
        megabytes: Of disk that it will fill, the DVC cache included.
    """

    sections: dict[str, Section]
    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Network:
    """The backbone that the plan is for.

    Attributes:
        section: Section `backbone`.
        reason: Why this network.
        model: The network at that size.
        size: Side of the images in px.
        ms_per_image: Milliseconds of a forward pass on this machine.
        mirrored: Whether mirrored images are as good as others, and why.
    """

    section: dict[str, str]
    reason: str
    model: keras.Model
    size: Derived
    ms_per_image: float
    mirrored: tuple[bool, str]


def plan(looked: Looked, network: Network, seed: int, threads: int) -> Plan:
    """Derive all values.

    Args:
        looked: The source.
        network: The backbone.
        seed: Of the splits and everything else.
        threads: Of TensorFlow.
    """
    size, mirrored = network.size, network.mirrored
    train = looked.survey.count("train")
    shared = Section()
    shared.put("seed", seed)
    shared.put("threads", threads, "cores of this machine; other numbers give other last bits")
    augment = Section()
    augment.put("use", "flip_crop" if mirrored[0] else "auto", mirrored[1])
    views = augmentation.views_for(train)
    augment.put("views", views.value, views.reason)
    prepare = Section()
    prepare.put("image_size", size.value, size.reason)
    if not looked.survey.given:
        prepare.put("train_fraction", 0.7, "val has 0.15 and test the rest")
    prepare.put("exclude", "conf/exclude.csv", "images that are not used, by path")
    chosen, derived = recipe.derive(Finetune(), train, network.model)
    finetune = Section()
    for name, one in derived.items():
        finetune.put(name.partition(".")[2], one.value, one.reason)
    sections = {
        "": shared,
        "data": Section(looked.settings, looked.reasons),
        "backbone": Section(dict(network.section), {"use": network.reason}),
        "head": _head(train),
        "augment": augment,
        "forward": _engine(),
        "prepare": prepare,
        "extract_features": Section({"batch_size": 32}),
        "train_head": Section(
            {"class_weight": None}, {"class_weight": "balanced if small classes count as much"}
        ),
        "finetune": finetune,
        "evaluate": Section({"split": "test"}),
        "serve": Section(
            {"unknown": UNKNOWN, "coverage": COVERAGE},
            {
                "unknown": "share of ordinary images that may be called unknown",
                "coverage": "of sets of labels, with prepare.calibration_fraction",
            },
        ),
        "sweep": Section({"n_trials": 20}, {"n_trials": "of make sweep"}),
    }
    work = _work(looked, network.model, chosen, int(views.value), int(size.value))
    return Plan(
        sections,
        work.passes * network.ms_per_image / 1000 + _STAGES * _START_S + _DRAW_S,
        work.megabytes,
    )


def _head(images: int) -> Section:
    """The head that is a good start; a regression needs all features in memory at once."""
    if images > _REGRESSED:
        return Section({"use": "linear"}, {"use": f"{images} training images, batch by batch"})
    return Section({"use": "logistic"}, {"use": "in seconds, the start of fine-tuning"})


def _engine() -> Section:
    """What computes: the fastest on this machine."""
    import tensorflow as tf

    gpu = bool(tf.config.list_physical_devices("GPU"))
    section = Section()
    section.put(
        "engine",
        str(Engine.keras if gpu else Engine.openvino),
        "on the GPU of this machine" if gpu else "faster than keras on processors without a GPU",
    )
    return section


@dataclass(frozen=True)
class _Work:
    """Forward passes of the whole network, and megabytes on disk."""

    passes: float
    megabytes: float


def _work(
    looked: Looked, model: keras.Model, finetune: Finetune, views: int, size_px: int
) -> _Work:
    from pipeline.features import cuts

    at = cuts.resolve(model, finetune.cut, finetune.batch_norm == "train").at
    (point,) = [one for one in cuts.describe(model) if one.name == at]
    train, val, test = (looked.survey.count(split) for split in ("train", "val", "test"))
    every, shown = train + val + test, train * views
    above = 1 - point.flops_below
    passes = (
        every
        + (shown - train)
        + (shown + val) * point.flops_below
        + finetune.epochs * above * (_BACKWARD * train + val)
        + test
    )
    width = 4 * math.prod(model.output_shape[1:])
    pixels, features = 3 * every * size_px**2, width * (every + shown - train)
    parameters = 4 * model.count_params()
    # Where files cannot be shared, outputs are kept twice, once by DVC, and features once more.
    copies = 1 if machine.shares_files() else 2
    kept = copies * (pixels + features + parameters) + (shown + val) * point.bytes_per_image
    kept += features * (copies - 1)
    return _Work(passes, kept / 1e6)
