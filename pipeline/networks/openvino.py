"""Run networks with OpenVINO, Intel's runtime, which also supports other processors.

graph -> network.xml and network.bin (OpenVINO's own format) -> a forward pass.
"""

from __future__ import annotations

import tempfile
import threading
from importlib.metadata import version as version_of
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.networks import runtime
from pipeline.networks.forward import Files, Floats, Forward
from pipeline.storage import workspace

_NETWORK, _WEIGHTS = "network.xml", "network.bin"
_PRECISION = {"float32": "f32", "bfloat16": "bf16"}
_AHEAD = 16


def version() -> str:
    """Return OpenVINO's version."""
    return version_of("openvino")


def library() -> ModuleType:
    """Import the package without its telemetry, which would report every import."""
    with runtime.hidden("openvino_telemetry"):
        import openvino
    loaded: ModuleType = openvino
    return loaded


def require(precision: str) -> None:
    """Stop if the processor does not support a precision.

    Raises:
        InputError: OpenVINO would silently use float32 instead.
    """
    if precision == "bfloat16":
        able = library().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if "BF16" not in able:
            raise InputError(
                f"forward.precision=bfloat16 is not supported by {workspace.processor()}: set "
                "forward.precision=float32"
            )


def convert(frozen: Any) -> Files:
    """Convert a graph from `frozen_graph.freeze`, for one image at a time."""
    openvino = library()
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "graph.pb"
        graph.write_bytes(frozen.graph.as_graph_def().SerializeToString())
        network = openvino.Core().read_model(graph)
        (entry,) = network.inputs
        network.reshape([1, *entry.partial_shape[1:]])
        _rename(network)
        path = Path(scratch) / _NETWORK
        openvino.save_model(network, path, compress_to_fp16=False)
        weights = path.with_name(_WEIGHTS)
        return {_NETWORK: path.read_bytes(), _WEIGHTS: weights.read_bytes()}


def load(files: Files, precision: str, threads: int) -> Forward:
    """Load a converted network."""
    openvino = library()
    core = openvino.Core()
    # Copied: the bytes may be freed while OpenVINO still uses them.
    weights = openvino.Tensor(np.frombuffer(files[_WEIGHTS], dtype=np.uint8).copy())
    network = core.read_model(files[_NETWORK], weights)
    settings = {
        "INFERENCE_PRECISION_HINT": _PRECISION[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    return _Forward(core.compile_model(network, "CPU", settings), threads)


def _rename(network: Any) -> None:
    """Name operations by their order: Keras numbers layers in the order of their creation."""
    for place, operation in enumerate(network.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{place}")
        for output in operation.outputs():
            output.get_tensor().set_names(set())


class _Forward(Forward):
    """Images one by one, each on its own thread."""

    def __init__(self, compiled: Any, threads: int) -> None:
        self.rows_at_once = _AHEAD * threads
        self.output_shape = tuple(compiled.output(0).shape)[1:]
        self._queue = library().AsyncInferQueue(compiled, threads)
        self._queue.set_callback(_store)
        self._lock = threading.Lock()

    def __call__(self, batch: NDArray[Any]) -> Floats:
        outputs = np.empty((len(batch), *self.output_shape), np.float32)
        with self._lock:
            for place, row in enumerate(batch):
                values = np.asarray(row[None], dtype=np.float32)
                self._queue.start_async({0: values}, (outputs, place))
            self._queue.wait_all()
        return outputs


def _store(request: Any, place: tuple[Floats, int]) -> None:
    outputs, row = place
    outputs[row] = request.get_output_tensor(0).data[0]
