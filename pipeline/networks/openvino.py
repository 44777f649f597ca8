"""Run networks with OpenVINO, Intel's runtime, which also supports other processors.

graph -> network.xml and network.bin (OpenVINO's own format) -> a forward pass.
"""

from __future__ import annotations

import tempfile
import threading
from collections import deque
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
_AHEAD, _IN_FLIGHT = 16, 2


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


class _Request:
    """One place for an image on its way; its tensors are views of OpenVINO's memory."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._entry: Floats = self._request.get_input_tensor(0).data
        self._result: Floats = self._request.get_output_tensor(0).data

    def start(self, row: NDArray[Any]) -> None:
        self._entry[0] = row
        self._request.start_async()

    def finish(self, output: Floats) -> None:
        self._request.wait()
        output[...] = self._result[0]


class _Forward(Forward):
    """Images one by one, each on its own thread.

    Waiting for them in order is 2.5 times as fast for small networks as OpenVINO's AsyncInferQueue,
    whose callbacks take Python's lock once an image.
    """

    def __init__(self, compiled: Any, threads: int) -> None:
        self.rows_at_once = _AHEAD * threads
        self.output_shape = tuple(compiled.output(0).shape)[1:]
        self._requests = [_Request(compiled) for _ in range(_IN_FLIGHT * threads)]
        self._lock = threading.Lock()

    def __call__(self, batch: NDArray[Any]) -> Floats:
        outputs = np.empty((len(batch), *self.output_shape), np.float32)
        with self._lock:
            running: deque[tuple[_Request, Floats]] = deque()
            try:
                for place, row in enumerate(batch):
                    if len(running) == len(self._requests):
                        request, output = running.popleft()
                        request.finish(output)
                    request = self._requests[place % len(self._requests)]
                    request.start(row)
                    running.append((request, outputs[place]))
            finally:
                for request, output in running:
                    request.finish(output)
        return outputs
