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
    import tf2onnx

    frozen = frozen_graph.freeze(source.model)
    converted, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[frozen.inputs[0].name],
        output_names=[frozen.outputs[0].name],
        opset=15,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    _rename(converted.graph)
    onnx.checker.check_model(converted)  # the converter keeps unsupported operations
    onnx.save(converted, path)


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Replace erfc, used by GELU and absent from ONNX, by 1 - erf(x)."""
    (source,), (target,) = node.input, node.output
    kind = {"dtypes": [graph.get_dtype(target)], "shapes": [graph.get_shape(target)]}
    graph.remove_node(name)
    constant = graph.make_const(f"{name}_one", np.ones((), np.float32))
    erf = graph.make_node("Erf", [source], **kind)
    outputs = [constant.output[0], erf.output[0]]
    graph.make_node("Sub", outputs, outputs=[target], name=name, **kind)


def _rename(graph: Any) -> None:
    """Name nodes by position, since the converter's names differ from run to run.

    The input is `images`, the output `probabilities`, the batch size `B`.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # loops and branches use names from outside
    nodes = _in_order(graph)
    del graph.node[:]
    graph.node.extend(nodes)
    names = {graph.input[0].name: frozen_graph.INPUT, graph.output[0].name: "probabilities"}
    for place, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{place}"
        for slot, name in enumerate(node.input):
            node.input[slot] = name and names.setdefault(name, f"{node.name}_input_{slot}")
        for slot, name in enumerate(node.output):
            node.output[slot] = name and names.setdefault(name, f"{node.name}_output_{slot}")
    for value in (graph.input[0], graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    constants = [constant for constant in graph.initializer if constant.name in names]
    for constant in constants:
        constant.name = names[constant.name]
    constants = sorted(constants, key=lambda constant: str(constant.name))
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(constants)


def _in_order(graph: Any) -> list[Any]:
    """List the nodes after those whose outputs they use, in an order independent of names."""
    makers = {name: node for node in graph.node for name in node.output}
    ordered: dict[int, Any] = {}
    waiting = [makers[graph.output[0].name]]
    while waiting:
        node = waiting[-1]
        before = [makers[name] for name in node.input if name in makers]
        missing = [maker for maker in before if id(maker) not in ordered]
        if missing:
            waiting.append(missing[0])
        else:
            ordered.setdefault(id(node), node)
            waiting.pop()
    return list(ordered.values())


def _read_onnx(path: Path, threads: int) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def _write_tflite(
    source: Source,
    path: Path,
    batch_size: int | None = None,
    configure: Callable[[Any], None] = lambda _: None,
) -> None:
    import tensorflow as tf

    # Not from the model itself, whose variables have no values during calibration.
    with tempfile.TemporaryDirectory() as scratch:
        _write_saved_model(source, Path(scratch), batch_size)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        configure(converter)
        path.write_bytes(converter.convert())


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
    _write_tflite(source, path, 1, quantize)


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
