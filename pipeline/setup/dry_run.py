"""What only the stages would find out, tried without their work: images, network, cut, DVC.

config -> checks, each ok or an error with its remedy.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum

from pipeline.config import Config
from pipeline.errors import InputError, shortened
from pipeline.intake import sources
from pipeline.settings import is_auto

USUAL_PX = 224
"""Side of images in px where it is derived from them later."""


class Level(StrEnum):
    """How a check came out."""

    ok = "ok"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Check:
    """One thing that a run needs.

    Attributes:
        name: Of the thing.
        level: Whether it is there.
        text: What was found and, where it is not well, what to do.
    """

    name: str
    level: Level
    text: str


def images(config: Config) -> Check:
    """Whether the source has the form that its kind expects; its images are not read."""
    if config.data.kind not in ("folder", "csv"):  # others are opened first, which takes a while
        return Check("images", Level.ok, f"{config.data.use} is looked into by prepare")
    left_out: list[sources.Sample] = []
    try:
        count = sum(1 for _ in sources.images(config.data, "count", left_out))
    except InputError as error:
        return Check("images", Level.error, str(error))
    text = f"{count} files to read, {len(left_out)} left out"
    return Check("images", Level.ok if count else Level.error, text)


def network(config: Config) -> Check:
    """Whether the backbone takes images of this size, and has the cut that is asked for."""
    from pipeline.networks import backbones, runtime

    runtime.configure(config.seed, config.threads)
    from pipeline.features import cuts

    section = backbones.without_weights(config.backbone)
    size: int = config.prepare.image_size
    try:
        if is_auto(size):
            low, high = backbones.sides(section) or (USUAL_PX, USUAL_PX)
            size = min(max(USUAL_PX, low), high)
        built = backbones.build(section, size, config.seed)
        cut = config.finetune.cut
        if not is_auto(cut):
            cuts.resolve(built.model, cut)
    except InputError as error:
        return Check("network", Level.error, str(error))
    return Check("network", Level.ok, f"{built.name} at {size} px, finetune.cut={cut}")


def start() -> Check:
    """Whether DVC would begin: it reads dvc.yaml, params.yaml and the repository."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if not tried.returncode:
        return Check("dvc repro", Level.ok, "can start")
    said = [line for line in tried.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = said[-1].removeprefix("ERROR: ") if said else "it gives no reason"
    return Check("dvc repro", Level.error, f"cannot start: {shortened(reason)}")
