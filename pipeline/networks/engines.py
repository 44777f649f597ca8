"""Engine of a forward pass: Keras, or OpenVINO, for which a network is converted.

model + section `forward` -> a forward pass, compared with Keras when it is created.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, shortened
from pipeline.networks.forward import Files, Forward
from pipeline.settings import setting

if TYPE_CHECKING:
    import keras


class Engine(StrEnum):
    """Library that runs a network; `auto` decides by the amount of work."""

    auto = "auto"
    keras = "keras"
    openvino = "openvino"


class Precision(StrEnum):
    """Type of the products in matrix multiplications; sums are float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


_TOLERANCE = {Precision.float32: 1e-4, Precision.bfloat16: 0.2}
"""Largest accepted difference from Keras' outputs, relative to their norm. Correct conversions of
pre-trained networks differed by 1e-5 at most, by 0.1 in bfloat16; wrong ones by about 1."""
CONVERSION = 5e11
"""Operations from which on OpenVINO saves more time than a conversion takes: 3 s for MobileNetV2,
whose 0.6e9 operations per image take 3 ms less (2 cores)."""
CHECKED = 8
"""Number of images on which a conversion is compared with Keras."""


@dataclass
class Config:
    """Section `forward`."""

    engine: Engine = setting(
        Engine.auto,
        "Library that computes the frozen part, and the model in evaluate, predict and serving. "
        "`auto` uses keras on a GPU and for the frozen part of small datasets, for which a "
        "conversion would not pay off, and openvino otherwise.",
    )
    precision: Precision = setting(
        Precision.float32,
        "Precision of the forward pass. bfloat16 is faster if the processor supports it, needs "
        "openvino, and costs accuracy (docs/how_it_works.md).",
        advanced=True,
    )

    def check(self, name: str) -> None:
        """Reject a precision that the engine does not support."""
        if self.precision == Precision.bfloat16 and self.engine == Engine.keras:
            raise InputError(f"{name}.precision=bfloat16 needs {name}.engine=openvino, got keras")

    def resolved(self, operations: float = math.inf) -> Config:
        """Replace `auto`, by counts and never by a clock: results depend on the engine.

        Args:
            operations: Floating-point operations of all forward passes; by default those of a
                model that is used for long.
        """
        if self.engine != Engine.auto:
            return self
        import tensorflow as tf

        little = operations < CONVERSION and self.precision == Precision.float32
        on_keras = little or bool(tf.config.list_physical_devices("GPU"))
        return replace(self, engine=Engine.keras if on_keras else Engine.openvino)


@dataclass(frozen=True)
class Converted:
    """A network converted for an engine.

    Attributes:
        engine: Name of the engine.
        version: Version of the engine.
        precision: Precision to compute in.
        files: The network.
    """

    engine: str
    version: str
    precision: str
    files: Files


def forward(
    model: keras.Model, config: Config, *, batch_size: int, threads: int, images: NDArray[Any]
) -> Forward:
    """Create a forward pass with the configured engine, or with Keras if that fails.

    Arguments as for `convert`; `batch_size` is Keras'.

    Raises:
        InputError: The engine is not installed, or the processor does not support the precision.
    """
    from pipeline.networks.keras_forward import KerasForward

    converted = convert(model, config, threads=threads, images=images)
    if converted is None:
        return KerasForward(model, batch_size)
    return load(converted, threads)


def convert(
    model: keras.Model,
    config: Config,
    *,
    threads: int,
    images: NDArray[Any],
    parts: Sequence[int] = (),
) -> Converted | None:
    """Convert a model for the engine and compare it with Keras, unless that was done before.

    Args:
        model: (B, ...) float32 -> (B, ...).
        config: Section `forward`.
        threads: Number of threads.
        images: (M, ...) images to check the conversion on.
        parts: Columns where outputs of another kind begin: each kind is compared separately.

    Returns:
        None if Keras computes: because it is configured, or because the engine cannot run this
        network or disagrees with Keras, which is printed.
    """
    config = config.resolved()
    if config.engine == Engine.keras:
        return None
    import tensorflow as tf

    from pipeline.networks import conversions, frozen_graph, openvino, runtime

    _require_openvino()
    openvino.require(str(config.precision))
    name = conversions.name(model, " ".join(described(config).values()))
    kept = conversions.read(name) if name else None
    if kept:
        return Converted(str(config.engine), openvino.version(), str(config.precision), kept)
    sample = np.asarray(images[:CHECKED], dtype=np.float32)
    try:
        with runtime.quiet():
            frozen = frozen_graph.freeze(model, batch_size=1)
            files = openvino.convert(frozen)
            actual = openvino.load(files, str(config.precision), threads)(sample)
            expected = np.concatenate([frozen(tf.constant(row[None]))[0] for row in sample])
    except Exception as error:  # converters raise anything, and Keras can run its own network
        _report_fallback(model, config, shortened(str(error)) or type(error).__name__)
        return None
    if not np.isfinite(expected).all():  # the next step that computes explains it
        return None
    pairs = zip(*(np.split(array, parts, axis=1) for array in (actual, expected)), strict=True)
    difference = max(_difference(*pair) for pair in pairs)
    if not difference <= _TOLERANCE[config.precision]:
        _report_fallback(
            model,
            config,
            f"its outputs differ from Keras' by {difference:.1e}, the limit is "
            f"{_TOLERANCE[config.precision]:g}",
        )
        return None
    if name:
        conversions.keep(name, files)
    return Converted(str(config.engine), openvino.version(), str(config.precision), files)


def load(converted: Converted, threads: int) -> Forward:
    """Load a converted network; needs no TensorFlow.

    Raises:
        InputError: The engine is not installed, or the processor does not support the precision.
    """
    from pipeline.networks import openvino

    _require_openvino(converted.version)
    openvino.require(converted.precision)
    return openvino.load(converted.files, converted.precision, threads)


def described(config: Config) -> dict[str, str]:
    """Describe what results depend on besides the network: engine, version and precision.

    Empty for Keras, whose version is always recorded (`runtime.versions`). What `auto` means
    depends on network and images, which are recorded, too.
    """
    if config.engine == Engine.keras:
        return {}
    from pipeline.networks import openvino

    _require_openvino()
    choice = "auto, " if config.engine == Engine.auto else ""
    return {"engine": f"{choice}openvino {openvino.version()}", "products": str(config.precision)}


def _require_openvino(version: str = "") -> None:
    """Stop if OpenVINO is not installed.

    Args:
        version: Version that a model was converted with; empty if Keras could replace it.
    """
    if importlib.util.find_spec("openvino") is None:
        wanted = f"openvino=={version}" if version else "openvino"
        other = "" if version else ", or set forward.engine=keras"
        raise InputError(f"forward.engine=openvino needs OpenVINO: pip install {wanted}{other}")


def _difference(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Return the norm of the difference, relative to the expected outputs' norm."""
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(actual - expected)) / (length or 1.0)


def _report_fallback(model: keras.Model, config: Config, reason: str) -> None:
    print(f"{model.name} runs on Keras, because {config.engine} cannot: {reason}", flush=True)
