"""Lists the operators of an ONNX file, with those in its functions and in the bodies of control flow."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from bge_export.files.onnx_reader import graphs_of, load_graph
from bge_export.operators import TRAINING

OWN_DOMAINS = ("", "ai.onnx")


def operators(path: Path) -> Iterator[str]:
    """Yield the operators of a file, and its functions as `function::name`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a valid ONNX file.
    """
    try:
        model = load_graph(path)
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"it is not a valid ONNX file: {error}") from error

    for function in model.functions:
        yield f"function::{function.domain}.{function.name}"

    for graph in graphs_of(model):
        for node in graph.node:
            name = node.op_type if node.domain in OWN_DOMAINS else f"{node.domain}::{node.op_type}"
            yield name + (TRAINING if node.op_type == "Dropout" and _trains(graph, node) else "")


def _trains(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    """Return whether a Dropout can be in training mode: its third input is there, and not known to be false."""
    if len(node.input) < 3 or not node.input[2]:
        return False

    stored = [tensor for tensor in graph.initializer if tensor.name == node.input[2]]
    stored += [
        one.t for maker in graph.node if maker.op_type == "Constant" and node.input[2] in maker.output
        for one in maker.attribute if one.name == "value"
    ]  # fmt: skip
    return not stored or any(bool(np.any(onnx.numpy_helper.to_array(tensor))) for tensor in stored)
