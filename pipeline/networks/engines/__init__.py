"""What computes a forward pass: Keras, or a runtime that a network is converted for.

    forward = engines.forward(model, config, batch_size=32, threads=2, pictures=some)

A runtime is a module here with `LIBRARIES` (the first runs a network, the others convert it),
`version()`, `insist(precision)`, `convert(frozen)` and `load(files, precision, threads)`. It takes
pictures one by one, as many at a time as there are threads, so that none depends on another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, shortened
from pipeline.networks.forward import Forward
from pipeline.settings import setting

if TYPE_CHECKING:
    import keras

Files = Mapping[str, bytes]
"""A converted network: name of each of its files -> content."""


class Engine(StrEnum):
    """What computes."""

    keras = "keras"
    onnxruntime = "onnxruntime"
    openvino = "openvino"


class Precision(StrEnum):
    """What products are computed in; sums are float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


_TOLERANCE = {Precision.float32: 1e-4, Precision.bfloat16: 0.2}
"""Length of the difference to Keras' outputs, as a share of their length, that is let pass. Right
conversions of pre-trained networks had 1e-5 at most, and 0.1 in bfloat16; wrong ones about 1."""
CHECKED = 8
"""Pictures that a conversion is compared with Keras on."""


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
    pictures: NDArray[Any],
) -> Forward:
    """The forward pass of a model as the engine computes it, or Keras where it cannot.

    Args:
        model: (B, ...) float32 -> (B, ...).
        config: Section `forward`.
        batch_size: Of Keras' passes.
        threads: To compute on.
        pictures: (M, ...) what the conversion is checked on; the first few suffice.

    Raises:
        InputError: The engine is not installed, or the processor has no such precision.
    """
    from pipeline.networks.keras_forward import KerasForward

    converted = convert(model, config, threads=threads, pictures=pictures)
    if converted is None:
        return KerasForward(model, batch_size)
    return load(converted, threads)


def convert(
    model: keras.Model,
    config: Config,
    *,
    threads: int,
    pictures: NDArray[Any],
    parts: Sequence[int] = (),
) -> Converted | None:
    """Convert a model for the engine and compare it with Keras; arguments as for `forward`.

    Args:
        model: (B, ...) float32 -> (B, ...).
        config: Section `forward`.
        threads: To compute on.
        pictures: (M, ...) what the conversion is checked on.
        parts: Columns at which outputs of different kinds begin: each is compared by itself.

    Returns:
        None where Keras computes: because the config says so, or because the engine cannot run
        this network or does not agree with Keras, which is said.
    """
    if config.engine == Engine.keras:
        return None
    from pipeline.networks import frozen_graph, runtime

    runtime_module = _module(config.engine)
    runtime_module.insist(str(config.precision))
    shown = np.asarray(pictures[:CHECKED], dtype=np.float32)
    try:
        with runtime.quiet():
            frozen = frozen_graph.freeze(model, batch_size=1)
            files = runtime_module.convert(frozen)
            found = runtime_module.load(files, str(config.precision), threads)(shown)
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
    return Converted(str(config.engine), runtime_module.version(), str(config.precision), files)


def load(converted: Converted, threads: int) -> Forward:
    """Make a converted network ready to run; needs no TensorFlow.

    Raises:
        InputError: The engine is not installed, or the processor has no such precision.
    """
    module = _module(converted.engine, converted.version)
    module.insist(converted.precision)
    loaded: Forward = module.load(converted.files, converted.precision, threads)
    return loaded


def described(config: Config) -> dict[str, str]:
    """What results depend on beside the network: engine, version and precision.

    Nothing for Keras, whose version is always told (`runtime.versions`).
    """
    if config.engine == Engine.keras:
        return {}
    version = _module(config.engine).version()
    return {"engine": f"{config.engine} {version}", "products": str(config.precision)}


def _module(engine: str, version: str = "") -> ModuleType:
    """A runtime's module; with a version, what only converts need not be installed."""
    module: ModuleType
    if engine == Engine.openvino:
        from pipeline.networks.engines import openvino as module
    else:
        from pipeline.networks.engines import onnxruntime as module
    needed = module.LIBRARIES[:1] if version else module.LIBRARIES
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        wanted = f"{engine}=={version}" if version else " ".join(missing)
        other = "" if version else ", or set forward.engine=keras"
        raise InputError(
            f"forward.engine={engine} needs {', '.join(missing)}, not installed: pip install "
            f"{wanted}{other}"
        )
    return module


def _constant(rows: NDArray[np.float32]) -> Any:
    import tensorflow as tf

    return tf.constant(rows)


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Length of the difference, as a share of the expected outputs' length."""
    length = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / (length or 1.0)


def _tell(model: keras.Model, config: Config, reason: str) -> None:
    print(f"{config.engine} does not run {model.name}, Keras does: {reason}", flush=True)
