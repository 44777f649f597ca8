"""Check what only the stages would detect, without their work: layout, network, cut, DVC.

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
"""Image size in px, if it is derived later."""


class Level(StrEnum):
    """Result of a check."""

    ok = "ok"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Check:
    """A check of one requirement: its name, its result, and details with the remedy."""

    name: str
    level: Level
    text: str


def layout(config: Config) -> Check:
    """Check that the source has the form that its kind expects; images are not read."""
    if config.data.kind not in ("folder", "csv"):  # opening others takes a while
        return Check("layout", Level.ok, f"{config.data.use} is checked by prepare")
    left_out: list[sources.Sample] = []
    try:
        count = sum(1 for _ in sources.images(config.data, "count", left_out))
    except InputError as error:
        return Check("layout", Level.error, str(error))
    text = f"{count} files to read, {len(left_out)} left out"
    return Check("layout", Level.ok if count else Level.error, text)


def network(config: Config) -> Check:
    """Check that the backbone takes images of this size and has the configured cut."""
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
    """Check that DVC can start: it reads dvc.yaml, params.yaml and the repository."""
    # One stage: a dry run of the others fails if their inputs do not exist yet.
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--single-item", "prepare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return Check("dvc repro", Level.ok, "can start")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "DVC gives no reason"
    return Check("dvc repro", Level.error, f"cannot start: {shortened(reason)}")
