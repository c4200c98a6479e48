"""Small ONNX files that hold what each precision must hold, and weights outside of the file."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

ROWS = 64
SIZE = ROWS * ROWS


def float_product(kind: int = TensorProto.FLOAT, name: str = "w") -> tuple[onnx.NodeProto, onnx.TensorProto]:
    """Return a product with a constant float matrix, and the matrix."""
    return helper.make_node("MatMul", ["x", name], [f"{name}/y"]), helper.make_tensor(
        name, kind, [ROWS, ROWS], [0.5] * SIZE
    )


def integer_product(kind: int, quantizer: str) -> tuple[list[onnx.NodeProto], onnx.TensorProto]:
    nodes = [helper.make_node(quantizer, ["x"], ["q"]), helper.make_node("MatMulInteger", ["q", "w"], ["y"])]
    return nodes, helper.make_tensor("w", kind, [ROWS, ROWS], [1] * SIZE)


def packed_product(operator: str, scales: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    node = helper.make_node(
        operator, ["x", "codes", "scales"], ["y"], domain="com.microsoft", K=ROWS, N=ROWS, bits=4, block_size=32
    )
    codes = helper.make_tensor("codes", TensorProto.UINT8, [SIZE // 2], [1] * (SIZE // 2))
    return [node], [codes, helper.make_tensor("scales", scales, [SIZE // 32], [1.0] * (SIZE // 32))]


def graph_of(precision: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and weights of a file of a precision."""
    if precision in ("fp32", "fp16"):
        node, weight = float_product(TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16)
        return [node], [weight]
    if precision in ("int8", "int8-dynamic", "uint8"):
        quantizer = "QuantizeLinear" if precision == "int8" else "DynamicQuantizeLinear"
        nodes, weight = integer_product(TensorProto.UINT8 if precision == "uint8" else TensorProto.INT8, quantizer)
        return nodes, [weight]

    operator = "MatMulBnb4" if precision == "bnb4" else "MatMulNBits"
    return packed_product(operator, TensorProto.FLOAT16 if precision == "q4f16" else TensorProto.FLOAT)


def write_onnx(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    outputs: Sequence[str] | None = None,
) -> None:
    """Write a graph, which need not run; by default its outputs are the results that no node reads."""
    made = dict.fromkeys(name for node in nodes for name in node.output)
    names = outputs or [name for name in made if not any(name in node.input for node in nodes)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, ROWS]) for name in ("x", *names)]
    graph = helper.make_graph(list(nodes), "graph", ends[:1], ends[1:], list(weights))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())


def edge(source: int, reader: int, port: int = 0) -> str:
    """Return an edge between two operators of an OpenVINO model."""
    return f'<edge from-layer="{source}" from-port="0" to-layer="{reader}" to-port="{port}"/>'


def write_ir(path: Path, kind: str = "f32") -> None:
    """Write the XML of an OpenVINO model with one constant matrix, and its empty weights."""
    matrix = f'<data element_type="{kind}" shape="{ROWS}, {ROWS}" offset="0" size="9"/>'
    constant = f'<layer id="0" type="Const" version="opset1">{matrix}</layer>'
    quantize = '<layer id="2" type="FakeQuantize" version="opset1"/>' if kind == "i8" else ""
    result = '<layer id="3" type="Result" version="opset1"/>'
    layers = f'{constant}<layer id="1" type="MatMul" version="opset1"/>{quantize}{result}'
    edges = edge(0, 1, 1) + (edge(2, 1) if quantize else "") + edge(1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0"?><net><layers>{layers}</layers><edges>{edges}</edges></net>')
    path.with_suffix(".bin").touch()


def elsewhere(tensor: onnx.TensorProto, location: str) -> onnx.TensorProto:
    """Return a tensor whose data lie in another file."""
    moved = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    moved.data_location = TensorProto.EXTERNAL
    moved.external_data.add(key="location", value=location)
    return moved
