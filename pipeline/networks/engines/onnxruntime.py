"""ONNX Runtime: Microsoft's runtime for networks in ONNX's format.

graph -> network.onnx -> a forward pass.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.networks import onnx_file
from pipeline.networks.forward import Floats, Forward

if TYPE_CHECKING:
    from pipeline.networks.engines import Files

LIBRARIES = ("onnxruntime", "onnx", "tf2onnx")

_NETWORK = "network.onnx"
_AHEAD = 16


def version() -> str:
    """Of the runtime."""
    return version_of("onnxruntime")


def insist(precision: str) -> None:
    """Nothing to ask: it has float32 alone, which `Config.check` knows."""


def convert(frozen: Any) -> Files:
    """A graph as `frozen_graph.freeze` gives it."""
    content: bytes = onnx_file.network(frozen).SerializeToString()
    return {_NETWORK: content}


def load(files: Files, precision: str, threads: int) -> Forward:
    """Ready to run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        files[_NETWORK], options, providers=["CPUExecutionProvider"]
    )
    return _Forward(session, threads)


class _Forward(Forward):
    """Pictures one by one, each on a thread of its own."""

    def __init__(self, session: Any, threads: int) -> None:
        self.rows_at_once = _AHEAD * threads
        self.output_shape = tuple(session.get_outputs()[0].shape[1:])
        self._session, self._input = session, session.get_inputs()[0].name
        self._pool = ThreadPoolExecutor(threads)

    def __call__(self, batch: NDArray[Any]) -> Floats:
        outputs = np.empty((len(batch), *self.output_shape), np.float32)
        for place, values in enumerate(self._pool.map(self._one, batch)):
            outputs[place] = values
        return outputs

    def _one(self, row: NDArray[Any]) -> Any:
        taken = np.asarray(row[None], dtype=np.float32)
        return self._session.run(None, {self._input: taken})[0][0]
