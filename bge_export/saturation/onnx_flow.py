"""Follows int8 weights and 8-bit activations forwards through an ONNX graph, so that no path to a product is missed.

Every operator passes both on, unless `FORGETTING` or a product is known to give a new float tensor that depends on the
inputs of the model: what is not known here, and what is computed from constants, is followed too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from bge_export.files.onnx_reader import bodies_of
from bge_export.saturation.flow import Flow, first_weight
from bge_export.saturation.onnx_constants import Graph
from bge_export.saturation.onnx_operators import ARITHMETIC, FORGETTING, PRODUCTS, SAME_KIND, SHAPES

EIGHT_BITS = ("int8", "uint8")

ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")
GIVING_CODES = (*ROUNDING, "QLinearMatMul", "QLinearConv", "QGemm")
"""Operators whose result has 8 bits even if its element type is not known here."""

RANDOM = ("RandomNormal", "RandomUniform")
"""Operators without an input whose result is not constant."""


@dataclass(frozen=True)
class Flows:
    """What is known of each tensor of a graph and of the graph around it, by name."""

    graph: Graph
    functions: frozenset[tuple[str, str]]
    eight_bits: bool
    """Whether any tensor of the model can have 8 bits."""
    around: "Flows | None" = None
    own: dict[str, Flow] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Flow:
        """Return what is known of a tensor; one that nobody made may hold anything."""
        if name in self.own:
            return self.own[name]
        return Flow(dynamic=True, rounded=self.eight_bits) if self.around is None else self.around[name]

    def start(self, inputs: Mapping[str, Flow]) -> None:
        """Enter the stored tensors and the inputs, of which only those are new that no stored tensor replaces."""
        self.own.update(inputs)
        for name, tensor in self.graph.tensors.items():
            self.own[name] = _stored(name, tensor)
        for name, sparse in self.graph.sparse.items():
            self.own[name] = _stored(name, sparse.values)

    def given(self, node: onnx.NodeProto) -> list[Flow]:
        """Return what is known of the values that a node takes; of scales and zero points of a quantization nothing."""
        names = node.input[:1] if node.op_type in ("QuantizeLinear", "DequantizeLinear") else node.input
        return [self[name] for name in names if name]

    def enter(self, node: onnx.NodeProto, bodies: Sequence["Flows"] = ()) -> None:
        """Enter the results of a node.

        Args:
            node: the node; what it reads was entered before.
            bodies: the flows of the graphs that it runs.
        """
        given = self.given(node)
        dynamic = any(self[name].dynamic for name in node.input if name) or node.op_type in RANDOM
        inside = [body[value.name] for body in bodies for value in body.graph.graph.output]

        for index, name in enumerate(node.output):
            if (node.domain, node.op_type) in self.functions:
                weight = first_weight(given) or f"the function {node.op_type}"
                found = Flow(dynamic=True, weight=weight if self.eight_bits else None, rounded=self.eight_bits)
            elif bodies:
                found = Flow(True, first_weight([*inside, *given]), any(one.rounded for one in (*inside, *given)))
            else:
                found = self._result(node, index, given, dynamic)

            self.own[name] = found

    def _result(self, node: onnx.NodeProto, index: int, given: Sequence[Flow], dynamic: bool) -> Flow:
        """Return what is known of one result of an operator."""
        kind = self._kind(node, index)
        codes = dynamic and (kind in EIGHT_BITS or (kind is None and node.op_type in GIVING_CODES))

        # Runtimes compute constants beforehand, so a constant is still a weight whatever computes it.
        new = node.op_type in FORGETTING or node.op_type in PRODUCTS or node.op_type in ROUNDING
        if node.op_type in SHAPES or (dynamic and new):
            return Flow(dynamic, None, codes, kind)

        # What activations are padded with is no weight.
        weight = first_weight(given[:1] if node.op_type == "Pad" and given and given[0].dynamic else given)
        unknown = node.op_type == "DequantizeLinear" and given and given[0].kind is None and not given[0].dynamic
        if not dynamic and (kind == "int8" or unknown):
            weight = weight or self.origin(node.output[index])
        if kind == "uint8" and not dynamic:
            weight = None

        # The sum of two activations is a float that no runtime has 8 bits of.
        summed = node.op_type in ARITHMETIC and sum(one.dynamic for one in given) > 1
        rounded = codes or node.op_type == "DequantizeLinear" or (not summed and any(one.rounded for one in given))
        return Flow(dynamic, weight, dynamic and rounded, kind)

    def _kind(self, node: onnx.NodeProto, index: int) -> str | None:
        """Return the element type of a result, None if it is not known."""
        attributes = {one.name: one for one in node.attribute}
        kind = node.op_type

        if kind == "Constant":
            stored = attributes["value"].t if "value" in attributes else None
            sparse = attributes["sparse_value"].sparse_tensor.values if "sparse_value" in attributes else stored
            return "other" if sparse is None else type_name(sparse.data_type)
        if kind == "Cast" and "to" in attributes:
            return type_name(attributes["to"].i)
        if kind == "DynamicQuantizeLinear":
            return "other" if index == 1 else "uint8"
        if kind == "DequantizeLinear" or kind in ("MatMulInteger", "ConvInteger"):
            return "other"
        if kind == "QuantizeLinear":
            if len(node.input) > 2 and node.input[2]:
                return self[node.input[2]].kind
            return type_name(attributes["output_dtype"].i) if "output_dtype" in attributes else "uint8"

        first = node.input[1 if kind == "Where" else 0 : 2][:1]
        return self[first[0]].kind if kind in SAME_KIND and first else None

    def origin(self, name: str) -> str:
        """Return the name of the stored tensor that a constant is computed from, or of the first node before it."""
        seen = set()
        while (node := self.graph.producer(name)) is not None and node.input and name not in seen:
            seen.add(name)
            name = node.input[0]
        return name


def type_name(number: int) -> str | None:
    """Return the name of an element type, None for the undefined one."""
    return onnx.TensorProto.DataType.Name(number).lower() if number else None


def walk(flows: Flows) -> Iterator[tuple[Flows, onnx.NodeProto]]:
    """Enter every node of a graph, bodies first; yield each node with the flows of its own graph."""
    for node in flows.graph.nodes:
        bodies = []

        for body in bodies_of(node):
            here = flows.graph
            inner = replace(flows, graph=Graph(body, here.folder, here.opsets, here.work, here), around=flows, own={})
            # A state of a Loop may come from the node, or from the body's last round.
            state = Flow(True, first_weight(flows.given(node)), rounded=flows.eight_bits)
            inner.start({value.name: state for value in body.input})
            yield from walk(inner)
            bodies.append(inner)

        flows.enter(node, bodies)
        yield flows, node


def _stored(name: str, tensor: onnx.TensorProto) -> Flow:
    kind = type_name(tensor.data_type)
    return Flow(weight=name if kind == "int8" else None, kind=kind)
