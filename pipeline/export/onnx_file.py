"""Convert a Keras model to an ONNX network, with the same bytes for the same model.

model -> network with input `images`, output `probabilities` and batch size `B`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.networks import frozen_graph

_OPSET = 15


def network(frozen: Any) -> Any:
    """Convert a graph.

    Args:
        frozen: Result of `frozen_graph.freeze`.

    Returns:
        A model of the package onnx, checked.
    """
    import onnx
    import tf2onnx

    converted, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=[frozen.inputs[0].name],
        output_names=[frozen.outputs[0].name],
        opset=_OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    _rename(converted.graph)
    onnx.checker.check_model(converted)  # the converter keeps unsupported operations
    return converted


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
