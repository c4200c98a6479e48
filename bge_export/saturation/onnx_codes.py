"""Computes the integers of a weight in the shape in which a product takes it."""

import math

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.saturation.onnx_bounds import behind
from bge_export.saturation.onnx_constants import DEEPEST, Graph
from bge_export.saturation.onnx_flow import Flows
from bge_export.saturation.onnx_operators import ARITHMETIC, EVALUATED, MOVING

Codes = NDArray[np.generic]


def codes_of(flows: Flows, name: str, depth: int = 0) -> Codes:
    """Return the integers that an operand of a product stands for, of any integer type.

    Moving operators move them; a constant that is added or multiplied is a part of dequantization.

    Args:
        flows: what is known of the graph's tensors.
        name: the operand, integers or the floats that they are dequantized to.
        depth: number of nodes between the operand and the product.

    Raises:
        ValueError: they depend on the model's inputs, are not whole numbers, or an operator stands between them and
            the product that does not leave them as they are.
        Exception: a node is not valid; onnx decides the type.
    """
    node, flow = flows.graph.producer(name), flows[name]

    if flow.dynamic:
        raise ValueError(f"{name!r} depends on the model's inputs")
    if flow.kind in ("int8", "uint8") or node is None:
        return _integers(flows.graph, name)
    if depth > DEEPEST:
        raise ValueError(f"{name!r} is more than {DEEPEST} operators behind")

    if node.op_type == "DequantizeLinear":
        return _integers(flows.graph, node.input[0])
    if node.op_type == "Cast":
        return codes_of(flows, node.input[0], depth + 1)
    if node.op_type in MOVING:
        return _moved(flows, node, name, depth)
    if node.op_type in ARITHMETIC:
        return _scaled(flows, node, depth)
    if flow.kind is None:
        return _integers(flows.graph, name)

    raise ValueError(f"{node.op_type} {node.name!r} changes it")


def _integers(graph: Graph, name: str) -> Codes:
    """Return a constant tensor of integers."""
    value = graph.constant(name)
    if value is None:
        node = behind(graph, name, tuple(EVALUATED))
        raise ValueError(f"{name!r} cannot be computed" + (f" behind {node.op_type} {node.name!r}" if node else ""))
    if not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"{name!r} does not consist of integers")
    return value


def _moved(flows: Flows, node: onnx.NodeProto, name: str, depth: int) -> Codes:
    """Return integers moved by a node as it moves the floats that they stand for."""
    values = {}
    for one in filter(None, node.input):
        value = codes_of(flows, one, depth + 1) if flows[one].weight is not None else flows.graph.constant(one)
        if value is None:
            raise ValueError(f"{one!r} cannot be computed")
        values[one] = value

    # A float constant between the integers is no part of the weight.
    if any(np.issubdtype(value.dtype, np.floating) for value in values.values()):
        raise ValueError(f"{node.op_type} {node.name!r} joins it with floats")

    return flows.graph.run(node, values)[list(node.output).index(name)]


def _scaled(flows: Flows, node: onnx.NodeProto, depth: int) -> Codes:
    """Return the integers behind one operand of an arithmetic operator, in the shape of its result."""
    carrying = [one for one in node.input if flows[one].weight is not None]
    first = node.input[0]

    if len(carrying) == 2 and node.op_type == "Sub" and flows[node.input[1]].weight != flows[first].weight:
        carrying = [first]  # a zero point that is int8 too
    if len(carrying) != 1 or (node.op_type == "Div" and carrying[0] != first):
        raise ValueError(f"{node.op_type} {node.name!r} computes with two weights")

    (other,) = [one for one in node.input if one != carrying[0]] or [""]
    factor = flows.graph.constant(other)
    if factor is None:
        raise ValueError(f"{other!r} cannot be computed")

    codes = codes_of(flows, carrying[0], depth + 1)
    shape = np.broadcast_shapes(codes.shape, factor.shape)
    flows.graph.work.spend(math.prod(shape))
    return np.broadcast_to(codes, shape)
