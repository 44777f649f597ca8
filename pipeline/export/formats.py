"""Formats of other runtimes: how to write a network in each, and run it as its users do.

Keras model -> SavedModel, ONNX or TFLite; file -> probabilities. Independent of the output folder
and of checks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.image_file import Pixels
from pipeline.export import onnx_file
from pipeline.networks import frozen_graph

if TYPE_CHECKING:
    import keras

Floats = NDArray[np.float32]
Network = Callable[[Floats], Floats]
"""(B, H, W, 3) RGB in [0, 255] -> (B, K) probabilities."""


@dataclass(frozen=True)
class Source:
    """Input of every conversion.

    Attributes:
        model: (B, H, W, 3) float32 RGB in [0, 255] -> (B, K) probabilities.
        calibration: (N, H, W, 3) uint8 images to determine the range of each activation.
        stderr: Stream for a progress bar.
    """

    model: keras.Model
    calibration: Pixels
    stderr: TextIO


@dataclass(frozen=True)
class Format:
    """A runtime's format: how to write and run its networks.

    Attributes:
        path: File or folder, relative to the export's folder.
        write: Converts a network to a path.
        read: Loads the network at a path, with a number of threads.
        quantized: Its probabilities are coarser than float32.
        libraries: Packages that TensorFlow does not install.
    """

    path: str
    write: Callable[[Source, Path], None]
    read: Callable[[Path, int], Network]
    quantized: bool = False
    libraries: tuple[str, ...] = ()


def _write_saved_model(source: Source, path: Path, batch_size: int | None = None) -> None:
    import tensorflow as tf

    # As Keras exports it, but with each weight once; Keras 3.15 writes all of them twice.
    module = tf.Module()
    module.weights = [variable.value for variable in source.model.variables]
    module.serve = tf.function(
        lambda images: source.model(images, training=False),
        input_signature=[frozen_graph.signature(source.model, batch_size)],
        autograph=False,
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


def _read_saved_model(path: Path, threads: int) -> Network:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # uses the threads of the process
    return lambda images: np.asarray(loaded.serve(tf.constant(images)))


def _write_onnx(source: Source, path: Path) -> None:
    import onnx

    onnx.save(onnx_file.network(frozen_graph.freeze(source.model)), path)


def _read_onnx(path: Path, threads: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _write_tflite(source: Source, path: Path) -> None:
    path.write_bytes(_tflite(source, batch_size=None))


def _write_tflite_int8(source: Source, path: Path) -> None:
    import tensorflow as tf

    def calibration() -> Any:
        bar = tqdm(
            source.calibration,
            "calibration",
            unit="image",
            file=source.stderr,
            disable=None,
            leave=False,
        )
        for image in bar:
            yield [np.asarray(image[None], np.float32)]

    def quantize(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = calibration
        # An operation without an integer version is an error, instead of staying in floats.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8

    # Compilers for accelerators need shapes that are known in advance.
    path.write_bytes(_tflite(source, batch_size=1, configure=quantize))


def _tflite(
    source: Source, batch_size: int | None, configure: Callable[[Any], None] = lambda _: None
) -> bytes:
    import tensorflow as tf

    # Not from the model itself, whose variables have no values during calibration.
    with tempfile.TemporaryDirectory() as scratch:
        _write_saved_model(source, Path(scratch), batch_size)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        configure(converter)
        return bytes(converter.convert())


def _read_tflite(path: Path, threads: int) -> Network:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    allocated: tuple[int, ...] = ()

    def network(images: Floats) -> Floats:
        nonlocal allocated
        if images.shape != allocated:
            interpreter.resize_tensor_input(entry["index"], images.shape)
            interpreter.allocate_tensors()
            allocated = images.shape
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(output["index"]))

    return network


def _read_tflite_int8(path: Path, threads: int) -> Network:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    (in_scale, in_zero), (out_scale, out_zero) = entry["quantization"], output["quantization"]

    def network(images: Floats) -> Floats:
        integers = np.clip(np.round(images / in_scale) + in_zero, 0, 255).astype(np.uint8)
        rows = []
        for image in integers:
            interpreter.set_tensor(entry["index"], image[None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(output["index"])[0])
        return np.asarray((np.stack(rows).astype(np.float32) - out_zero) * out_scale, np.float32)

    return network


FORMATS = {
    "saved_model": Format("saved_model", _write_saved_model, _read_saved_model),
    "onnx": Format(
        "model.onnx", _write_onnx, _read_onnx, libraries=("onnx", "onnxruntime", "tf2onnx")
    ),
    "tflite": Format("model.tflite", _write_tflite, _read_tflite),
    "tflite_int8": Format(
        "model_int8.tflite", _write_tflite_int8, _read_tflite_int8, quantized=True
    ),
}
