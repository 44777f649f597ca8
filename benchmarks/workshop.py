"""A copy of the project for measurements, on photographs of ants and bees with real weights."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.features import augmentation
from pipeline.features.source import FrozenPart
from pipeline.networks import engines
from pipeline.networks.backbones import BackboneConfig

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared"
WEIGHTS = (
    "weights/keras_home/models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
)


@contextmanager
def copy(preset: str = "") -> Iterator[Path]:
    """Yield a folder with what a clone has, its params.yaml or that of a preset."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "project"
        listed = subprocess.check_output(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=PROJECT, text=True
        )
        for name in listed.splitlines():
            if (PROJECT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, folder / name)
        (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
        if preset:
            shutil.copy(PROJECT / "conf" / "experiment" / f"{preset}.yaml", folder / "params.yaml")
        if SHARED.is_dir():
            (folder.parent / "shared").symlink_to(SHARED)
        yield folder


def real_weights(folder: Path) -> None:
    """MobileNetV2 at its full width, with its ImageNet weights, instead of the preset's."""
    if not SHARED.is_dir():
        raise SystemExit(
            f"needs {SHARED.name}/data/hymenoptera.tar and {WEIGHTS} next to the project"
        )
    path = folder / "params.yaml"
    text = path.read_text()
    text = text.replace("use: mobilenet_v2_035", "use: mobilenet_v2")
    old = "../shared/weights/mobilenet_v2_0.35_224_no_top.weights.h5"
    assert old in text
    path.write_text(text.replace(old, f"../shared/{WEIGHTS}"))


def frozen(backbone: BackboneConfig, batch_size: int) -> FrozenPart:
    """Settings of a forward pass of the frozen part, otherwise the defaults."""
    return FrozenPart(backbone, augmentation.Config(), engines.Config(), batch_size, 0, 2)


def run(folder: Path, *command: str) -> str:
    """Run a command of the virtual environment; returns what it printed."""
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": search, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
