"""Inspect your images and write a params.yaml that suits them, with a reason for each value.

Takes a folder with a subfolder for each class, a csv file or an archive. Reports what it finds,
how long `dvc repro` will take, and how small a difference the test images can detect. An existing
params.yaml is only replaced with --force, which keeps a copy.

    python -m pipeline init images --try mobilenet_v2,efficientnet_v2_b0
    python -m pipeline init images 'data.splits={extra: test}'
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import Config, setting_of
from pipeline.errors import InputError
from pipeline.intake import sizing
from pipeline.setup import candidates, params_file, planning, source
from pipeline.setup.candidates import Tried
from pipeline.setup.params_file import DEFAULT
from pipeline.setup.planning import Network, Plan
from pipeline.setup.source import Looked
from pipeline.storage import derived
from pipeline.storage.derived import Derived

if TYPE_CHECKING:
    from pipeline.networks.backbones import Backbone

_SEED = 0
_ENOUGH, _PER_CLASS = 500, 5
"""Sampled images, at least and per class, that show if flips are safe."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images and the networks."""
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder, csv or archive")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--backbone",
        default=DEFAULT,
        metavar="NAME",
        help=f"a file in conf/backbone, or a .keras or .h5 model (default: {DEFAULT})",
    )
    which.add_argument(
        "--try",
        dest="tried",
        metavar="NAME,NAME,...",
        help="compare these networks on a sample of the images and use the best",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out a class, folder or file, or a pattern; can be repeated",
    )
    parser.add_argument("--force", action="store_true", help="replace params.yaml and keep a copy")


def run(options: argparse.Namespace, overrides: list[str], compose: Callable[..., Config]) -> None:
    """Inspect the images, derive the settings and write params.yaml.

    Raises:
        InputError: params.yaml exists, or the images are not in a supported layout.
    """
    params_file.refuse_to_lose(options.force)
    settings = {}
    for word in overrides:
        name, value = setting_of(word)
        if not name.startswith("data."):
            raise InputError(f"init only takes settings of section data, got {word}")
        settings[name.removeprefix("data.")] = value
    looked = source.look(options.images, options.ignore, _SEED, settings)
    for line in source.describe(looked.survey):
        print(line)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    plan = _planned(options, looked, threads or 1, compose)
    command = f"python -m pipeline init {shlex.join(sys.argv[2:])}"
    copy = params_file.write(params_file.text(plan.sections, command), compose)
    print()
    for line in _conclusion(plan, looked):
        print(line)
    print("wrote params.yaml" + (f" (the old one is {copy})" if copy else ""))
    print("next: make repro")


def _planned(
    options: argparse.Namespace, looked: Looked, threads: int, compose: Callable[..., Config]
) -> Plan:
    from pipeline.networks import backbones, runtime

    runtime.configure(_SEED, threads)
    requested = options.tried.split(",") if options.tried else [options.backbone]
    networks, failed = _networks([name.strip() for name in requested], looked, threads, compose)
    name = next(iter(networks))
    reason = "small, fast and widely used" if name == DEFAULT else "as requested"
    if options.tried:
        best = _compared(networks, failed, looked, threads)
        name, reason = (
            best.name,
            f"the best of those tried, {best.quality} {best.values.mean():.3f}",
        )
    backbone, size = networks[name]
    print("deriving settings from a sample of the images")
    enough = max(_ENOUGH, _PER_CLASS * len(looked.survey.classes))
    sampled = candidates.sample(looked.config, looked.survey, int(size.value), enough)
    network = Network(
        backbones.section(name),
        reason,
        backbone.model,
        size,
        candidates.milliseconds(backbone.model, sampled.images),
        candidates.may_be_mirrored(backbone, sampled, seed=_SEED, threads=threads),
    )
    return planning.plan(looked, network, _SEED, threads)


def _networks(
    names: list[str], looked: Looked, threads: int, compose: Callable[..., Config]
) -> tuple[dict[str, tuple[Backbone, Derived]], dict[str, str]]:
    """Build the networks; also returns the reason for each that is not available.

    Raises:
        InputError: None of them is available.
    """
    built, failed = {}, {}
    for name in names:
        try:
            built[name] = _network(name, looked, threads, compose)
        except InputError as error:
            failed[name] = str(error)
    if not built:
        reasons = "; ".join(failed.values())
        raise InputError(f"{reasons}; or choose another network with --backbone")
    return built, failed


def _network(
    name: str, looked: Looked, threads: int, compose: Callable[..., Config]
) -> tuple[Backbone, Derived]:
    from pipeline.features import scaling
    from pipeline.networks import backbones

    config = params_file.composed(looked.settings, name, compose).backbone
    shorter = [min(row.width, row.height) for row in looked.survey.used]
    least, most = backbones.sides(config) or (sizing.SMALLEST_PX, sizing.USUAL_PX)
    size = sizing.fitting(shorter, least, most)
    side = int(size.value)
    names, _ = backbones.scalings(config, side)
    if names:
        sampled = candidates.sample(looked.config, looked.survey, side)
        chosen = scaling.choose(
            lambda scale: backbones.build(backbones.with_scale(config, scale), side, _SEED),
            names,
            sampled.images,
            sampled.strata,
            seed=_SEED,
            threads=threads,
        )
        derived.report({scaling.SETTING: chosen})
        config = backbones.with_scale(config, str(chosen.value))
    return backbones.build(config, side, _SEED), size


def _compared(
    networks: dict[str, tuple[Backbone, Derived]],
    failed: dict[str, str],
    looked: Looked,
    threads: int,
) -> Tried:
    tried = []
    width = max(map(len, (*networks, *failed)))
    for name, (backbone, size) in networks.items():
        sampled = candidates.sample(looked.config, looked.survey, int(size.value))
        tried.append(candidates.attempt(name, backbone, sampled, seed=_SEED, threads=threads))
        print(f"{name:{width}}  {tried[-1]}")
    for name, why in failed.items():
        print(f"{name:{width}}  not available: {why}")
    return min(tried, key=lambda result: (-result.values.mean(), result.ms_per_image))


def _conclusion(plan: Plan, looked: Looked) -> Iterator[str]:
    """Explain each value, the cost of a run, and what the test images can show."""
    from pipeline.evaluation import verdict

    for name, section in plan.sections.items():
        for setting, (value, reason) in section.items():
            if reason:
                full = f"{name}.{setting}".removeprefix(".")
                yield f"{full}={params_file.written(value)}: {reason}"
    yield (
        f"dvc repro will take up to about {_spoken(plan.seconds)} on this machine, "
        f"{_spoken(plan.frozen_seconds)} without fine-tuning (finetune.cut=none), and "
        f"{plan.megabytes:.0f} MB of disk"
    )
    test = looked.survey.count("test")
    if looked.survey.task.headline[0] == "accuracy":
        yield (
            f"{test} test images would probably miss differences in accuracy below "
            f"{100 * verdict.detectable(test):.1f} points"
        )


def _spoken(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
