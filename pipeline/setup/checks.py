"""Check what a run needs: packages, weights, disk, memory, git, DVC, tracking, ports, images.

config -> checks, each ok, a warning or an error with its remedy. TensorFlow is only imported where
it is checked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from pipeline.config import Config
from pipeline.errors import InputError, shortened
from pipeline.intake import sizing, sources
from pipeline.networks import engines, foreign_file
from pipeline.networks.engines import Engine
from pipeline.settings import is_auto
from pipeline.setup import machine
from pipeline.storage import workspace

if TYPE_CHECKING:
    from pipeline.networks.backbones import BackboneConfig

_MEMORY_GB = 2.0
"""Memory for TensorFlow, MLflow and a medium-sized network."""
_SPARE_GB = 1.0


class Level(StrEnum):
    """Result of a check."""

    ok = "ok"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Check:
    """A check of one requirement: its name, its result, and details with the remedy."""

    name: str
    text: str
    level: Level


_ok, _warning, _error = (partial(Check, level=level) for level in Level)


def cheap(config: Config) -> Iterator[Check]:
    """Run the checks that take no time: images, weights, disk."""
    yield _images(config)
    yield weights(config.backbone)
    yield _disk(config)


def insist(config: Config) -> None:
    """Stop before any work if a run cannot succeed; warnings go to stderr.

    Raises:
        InputError: A cheap check fails.
    """
    for check in cheap(config):
        if check.level == Level.error:
            raise InputError(f"{check.name}: {check.text}")
        if check.level == Level.warning:
            print(f"{check.level}: {check.name}: {check.text}", file=sys.stderr)


def every(config: Config) -> Iterator[Check]:
    """Run all checks of a project with a valid config."""
    yield from cheap(config)
    yield _layout(config)
    yield _network(config)
    yield _engine(config)
    yield _memory()
    yield _git()
    yield from _dvc()
    yield _tracking(config)
    yield from _ports(config)


def tensorflow() -> Check:
    """Check TensorFlow and its devices."""
    from pipeline.networks import runtime

    try:
        with runtime.quiet():
            import tensorflow as tf
    except ImportError as error:
        return _error("tensorflow", f"cannot be imported: {error}; run make repro")
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    gpus = devices.count("GPU")
    devices_text = f"{gpus} GPU" if gpus else "no GPU, using the processor"
    python = ".".join(map(str, sys.version_info[:3]))
    text = f"{tf.version.VERSION} on Python {python}; {devices_text}"
    return _ok("tensorflow", text)


def _layout(config: Config) -> Check:
    """Check that the source has the form that its kind expects; images are not read."""
    if config.data.kind not in ("folder", "csv"):  # opening others takes a while
        return _ok("layout", f"{config.data.use} is checked by prepare")
    left_out: list[sources.Sample] = []
    try:
        count = sum(1 for _ in sources.images(config.data, "count", left_out))
    except InputError as error:
        return _error("layout", str(error))
    text = f"{count} files to read, {len(left_out)} left out"
    return (_ok if count else _error)("layout", text)


def _network(config: Config) -> Check:
    """Check that the backbone takes images of this size and has the configured cut."""
    from pipeline.networks import backbones, runtime

    runtime.configure(config.seed, config.threads)
    from pipeline.features import cuts

    section = backbones.without_weights(config.backbone)
    size: int = config.prepare.image_size
    try:
        if is_auto(size):
            low, high = backbones.sides(section) or (sizing.USUAL_PX, sizing.USUAL_PX)
            size = min(max(sizing.USUAL_PX, low), high)
        built = backbones.build(section, size, config.seed)
        cut = config.finetune.cut
        if not is_auto(cut):
            cuts.resolve(built.model, cut)
    except InputError as error:
        return _error("network", str(error))
    return _ok("network", f"{built.name} at {size} px, finetune.cut={cut}")


def _start() -> Check:
    """Check that DVC can start: it reads dvc.yaml, params.yaml and the repository."""
    # One stage: a dry run of the others fails if their inputs do not exist yet.
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--single-item", "prepare"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return _ok("dvc repro", "can start")
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1].removeprefix("ERROR: ") if errors else "DVC gives no reason"
    return _error("dvc repro", f"cannot start: {shortened(reason)}")


def _engine(config: Config) -> Check:
    """Check that the engine is installed and suits this machine."""
    import tensorflow as tf

    engine = config.forward.engine
    try:
        described = engines.described(config.forward.resolved()) or {"engine": str(Engine.keras)}
    except InputError as error:
        return _error("engine", str(error))
    if engine == Engine.openvino and tf.config.list_physical_devices("GPU"):
        return _warning(
            "engine", f"{engine} does not use the GPU of this machine: set forward.engine=keras"
        )
    return _ok("engine", " ".join(described.values()))


def weights(backbone: BackboneConfig) -> Check:
    """Check that the backbone's weights exist."""
    if named := backbone.file():
        setting, path = named
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        if path.is_file() or (path.is_dir() and backbone.takes_folders):
            size = sum(file.stat().st_size for file in files)
            return _ok("weights", f"{path}, {size / 1e6:.0f} MB")
        try:
            foreign_file.refuse(path)
        except InputError as error:
            return _error("weights", str(error))
        return _error("weights", f"no file {path}: set {setting} to the file")
    if getattr(backbone, "weights", None) != "imagenet":
        return _ok("weights", f"{backbone.use} needs no weights file")
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    name = getattr(backbone, "name", backbone.use)
    wanted = _letters(name)
    for path in sorted(folder.glob("*.h5")):
        if _letters(path.name).startswith(wanted) and re.search(r"no_?top", path.name):
            return _ok("weights", f"{name}, in {folder}")
    return _warning(
        "weights",
        f"weights of {name} are not in {folder}: the first run downloads them; or put the file "
        "there, or set backbone.weights to its path",
    )


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _images(config: Config) -> Check:
    path = Path(config.data.path)
    if not path.exists():
        return _error("images", f"data.path={path} does not exist: set data.path to your images")
    return _ok("images", f"{config.data.use}, {path}")


def _disk(config: Config) -> Check:
    free = shutil.disk_usage(workspace.root()).free / 1e9
    need = _needed_gb(config)
    text = f"{free:.1f} GB free, about {need:.1f} GB needed"
    if free < need:
        return _error("disk", f"{text}: free some, lower prepare.image_size, or move the project")
    if free < need + _SPARE_GB:
        return _warning("disk", f"{text}: free some before it runs out")
    return _ok("disk", text)


def _needed_gb(config: Config) -> float:
    """Estimate the size of decoded images, in outputs and in DVC's cache."""
    side = sizing.USUAL_PX if is_auto(config.prepare.image_size) else config.prepare.image_size
    if config.data.kind not in ("folder", "csv"):  # others would have to be opened
        return 0.0
    try:
        images = sum(1 for _ in sources.images(config.data, "count"))
    except InputError:
        return 0.0  # prepare explains what is wrong
    return (1 if machine.shares_files() else 2) * images * 3 * side**2 / 1e9


def _memory() -> Check:
    available = psutil.virtual_memory().available / 1e9
    text = f"{available:.1f} GB available"
    if available < _MEMORY_GB:
        return _warning(
            "memory", f"{text}, a run takes about {_MEMORY_GB:.0f} GB: close other programs"
        )
    return _ok("memory", text)


def _git() -> Check:
    from pipeline.tracking import provenance

    commit = _output("git", "rev-parse", "--short", "HEAD")
    if refusal := provenance.refusal():
        return _warning("git", refusal)
    if commit is None:
        return _warning(
            "git", "no commit, so runs cannot record their code: git init, git add -A, git commit"
        )
    changed = len((_output("git", "status", "--porcelain") or "").splitlines())
    dirty = f", {changed} changed files, which runs store as a patch" if changed else ""
    return _ok("git", f"commit {commit}{dirty}")


def _dvc() -> Iterator[Check]:
    if not Path(".dvc").is_dir():
        yield _error("dvc", "no .dvc here: dvc init (or dvc init --no-scm)")
        return
    yield _start()
    remotes = _output(sys.executable, "-m", "dvc", "remote", "list") or ""
    if remotes:
        name = remotes.split()[0]
        yield _ok("dvc remote", f"{name}: dvc push shares outputs")
    else:
        yield _warning(
            "dvc remote",
            "none, outputs are only on this machine: dvc remote add -d NAME URL, then dvc push",
        )
    types = f"cache.type={machine.cache_type()}"
    if machine.shares_files():
        yield _ok("dvc links", f"{types}: outputs are stored once")
    else:
        yield _warning(
            "dvc links",
            f"{types}: outputs are stored twice; if .dvc/cache is on the project's disk, "
            "dvc config cache.type hardlink,reflink,copy",
        )


def _tracking(config: Config) -> Check:
    from pipeline.tracking import store

    if not config.tracking.enabled:
        return _warning("tracking", "off: runs are not logged (tracking.enabled=false)")
    try:
        store.connect(config.tracking)
    except InputError as error:
        return _error("tracking", str(error))
    return _ok("tracking", store.public_address(config.tracking))


def _ports(config: Config) -> Iterator[Check]:
    for host, number, name in (
        ("127.0.0.1", config.tracking.port, "tracking.port"),
        (config.serve.host, config.serve.port, "serve.port"),
    ):
        try:
            machine.check_port(host, number, name)
        except InputError as error:
            yield _warning(name, str(error))
        else:
            yield _ok(name, f"{number} is free")


def _output(*command: str) -> str | None:
    """Return a program's output; None if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
