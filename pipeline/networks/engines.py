"""The engine of a forward pass: Keras, or OpenVINO, for which a network is converted.

model + section `forward` -> a forward pass, compared with Keras when it is made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
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
    """Library that runs a network."""

    keras = "keras"
    openvino = "openvino"


class Precision(StrEnum):
    """What products are computed in; sums are float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


_TOLERANCE = {Precision.float32: 1e-4, Precision.bfloat16: 0.2}
"""Length of the difference to Keras' outputs, as a share of their length, that is let pass. Right
conversions of pre-trained networks had 1e-5 at most, and 0.1 in bfloat16; wrong ones about 1."""
CHECKED = 8
"""Images that a conversion is compared with Keras on."""


@dataclass
class Config:
    """Section `forward`."""

    engine: Engine = setting(
        Engine.openvino,
        "What computes the frozen part, and the model in evaluate, predict and serving. Of a GPU "
        "only keras makes use.",
    )
    precision: Precision = setting(
        Precision.float32,
        "Of the products. bfloat16 is faster where the processor has it, needs openvino, and "
        "costs accuracy (docs/how_it_works.md).",
    )

    def check(self, name: str) -> None:
        """Hold what an engine has no precision for."""
        if self.precision == Precision.bfloat16 and self.engine != Engine.openvino:
            raise InputError(
                f"{name}.precision=bfloat16 needs {name}.engine=openvino, got {self.engine}"
            )


@dataclass(frozen=True)
class Converted:
    """A network for a runtime.

    Attributes:
        engine: Which one.
        version: Of the runtime.
        precision: To compute in.
        files: The network.
    """

    engine: str
    version: str
    precision: str
    files: Files


def forward(
    model: keras.Model,
    config: Config,
    *,
    batch_size: int,
    threads: int,
    images: NDArray[Any],
) -> Forward:
    """The forward pass of a model as the engine computes it, or Keras where it cannot.

    Args:
        model: (B, ...) float32 -> (B, ...).
        config: Section `forward`.
        batch_size: Of Keras' passes.
        threads: To compute on.
        images: (M, ...) what the conversion is checked on; the first few suffice.

    Raises:
        InputError: The engine is not installed, or the processor has no such precision.
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
    """Convert a model for the engine and compare it with Keras; arguments as for `forward`.

    Args:
        model: (B, ...) float32 -> (B, ...).
        config: Section `forward`.
        threads: To compute on.
        images: (M, ...) what the conversion is checked on.
        parts: Columns at which outputs of different kinds begin: each is compared by itself.

    Returns:
        None where Keras computes: because the config says so, or because the engine cannot run
        this network or does not agree with Keras, which is said.
    """
    if config.engine == Engine.keras:
        return None
    from pipeline.networks import frozen_graph, openvino, runtime

    _require_openvino()
    openvino.require(str(config.precision))
    shown = np.asarray(images[:CHECKED], dtype=np.float32)
    try:
        with runtime.quiet():
            frozen = frozen_graph.freeze(model, batch_size=1)
            files = openvino.convert(frozen)
            found = openvino.load(files, str(config.precision), threads)(shown)
            expected = np.concatenate([frozen(_constant(row[None]))[0] for row in shown])
    except Exception as error:  # whatever a converter dies of, Keras can run its own network
        _tell(model, config, shortened(str(error)) or type(error).__name__)
        return None
    if not np.isfinite(expected).all():  # whoever computes the rest says what is wrong
        return None
    pairs = zip(*(np.split(one, parts, axis=1) for one in (found, expected)), strict=True)
    difference = max(_difference(*pair) for pair in pairs)
    if not difference <= _TOLERANCE[config.precision]:
        _tell(
            model,
            config,
            f"its outputs differ by {difference:.1e} from Keras', at most "
            f"{_TOLERANCE[config.precision]:g} is let pass",
        )
        return None
    return Converted(str(config.engine), openvino.version(), str(config.precision), files)


def load(converted: Converted, threads: int) -> Forward:
    """Make a converted network ready to run; needs no TensorFlow.

    Raises:
        InputError: The engine is not installed, or the processor has no such precision.
    """
    from pipeline.networks import openvino

    _require_openvino(converted.version)
    openvino.require(converted.precision)
    return openvino.load(converted.files, converted.precision, threads)


def described(config: Config) -> dict[str, str]:
    """What results depend on beside the network: engine, version and precision.

    Nothing for Keras, whose version is always told (`runtime.versions`).
    """
    if config.engine == Engine.keras:
        return {}
    from pipeline.networks import openvino

    _require_openvino()
    return {"engine": f"openvino {openvino.version()}", "products": str(config.precision)}


def _require_openvino(version: str = "") -> None:
    """Stop where OpenVINO is not installed.

    Args:
        version: That a model was converted with; empty where Keras would do instead.
    """
    if importlib.util.find_spec("openvino") is None:
        wanted = f"openvino=={version}" if version else "openvino"
        other = "" if version else ", or set forward.engine=keras"
        raise InputError(
            f"forward.engine=openvino needs openvino, not installed: pip install {wanted}{other}"
        )


def _constant(rows: NDArray[np.float32]) -> Any:
    import tensorflow as tf

    return tf.constant(rows)


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Length of the difference, as a share of the expected outputs' length."""
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / (length or 1.0)


def _tell(model: keras.Model, config: Config, reason: str) -> None:
    print(f"{config.engine} does not run {model.name}, Keras does: {reason}", flush=True)
