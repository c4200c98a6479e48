"""The graph in 4 bits: the file's ends, its size, and numbers that are those of the codes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bge_export.precision.graphs import q4
from bge_export.precision.graphs.q4_table import MIDDLE, pack_table, round_table

RANDOM = np.random.default_rng(1)


def graph_of(weight: np.ndarray, table: np.ndarray) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], "lookup"),
        helper.make_node("MatMul", ["x", "weight"], ["y"], "product"),
        helper.make_node("MatMul", ["x", "weight"], ["z"], "again"),
        helper.make_node("Add", ["y", "z"], ["out"], "sum"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", "s", weight.shape[1]])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weight, "weight")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids})[0]


@pytest.mark.parametrize("width", [64, 40, 12])
def test_the_table_is_unpacked_to_the_values_of_its_codes(width: int) -> None:
    table = RANDOM.standard_normal((50, width)).astype(np.float32)
    codes, scales = round_table(table)
    block = width // scales.shape[1]
    expected = (codes.astype(np.float32) - MIDDLE) * np.repeat(scales.astype(np.float32), block, axis=1)
    assert np.abs(expected - table).mean() < np.abs(table).max() / MIDDLE / 2
    model = graph_of(np.eye(width, dtype=np.float32), table)
    pack_table(model.graph)
    ids = RANDOM.integers(0, 50, (3, 7))
    np.testing.assert_array_equal(run(model, ids), 2 * expected[ids])


@pytest.mark.parametrize("width", [64, 40])
def test_products_are_those_of_the_rounded_weight(width: int) -> None:
    """Also where the width is no multiple of a block, and where two products share a weight."""
    weight = RANDOM.standard_normal((width, 6)).astype(np.float32)
    table = RANDOM.standard_normal((50, width)).astype(np.float32)
    identity = np.eye(width, dtype=np.float32)
    model = q4.quantize(graph_of(weight, table), {"weight": identity})
    assert [node.op_type for node in model.graph.node][-3:] == ["MatMulNBits", "MatMulNBits", "Add"]
    assert not {"weight", "table"} & {tensor.name for tensor in model.graph.initializer}
    assert {(entry.domain, entry.version) for entry in model.opset_import} == {("", 17), ("com.microsoft", 1)}
    codes, scales = round_table(table)
    rows = (codes.astype(np.float32) - MIDDLE) * np.repeat(scales.astype(np.float32), width // scales.shape[1], axis=1)
    missing = -width % q4.BLOCK
    moments = np.pad(identity, (0, missing))
    values = q4.round_weight(np.pad(weight, ((0, missing), (0, 0))), moments, q4.BLOCK).values()[:width]
    ids = RANDOM.integers(0, 50, (3, 7))
    given, expected = run(model, ids), 2 * rows[ids] @ values
    # Inputs are rounded to 8 bits, block by block.
    assert np.abs(given - expected).max() < 0.02 * np.abs(expected).max()


def test_a_table_of_odd_width_and_other_lookups_stay() -> None:
    odd = graph_of(np.eye(5, dtype=np.float32), np.ones((4, 5), np.float32))
    before = odd.SerializeToString()
    pack_table(odd.graph)
    assert odd.SerializeToString() == before
    other = graph_of(np.eye(8, dtype=np.float32), np.ones((4, 8), np.float32))
    other.graph.node[0].input[1] = "positions"
    before = other.SerializeToString()
    pack_table(other.graph)
    assert other.SerializeToString() == before


def test_half_bytes_are_packed_low_first_and_an_odd_end_is_filled() -> None:
    codes = np.array([[1, 2, 3], [15, 0, 15]], np.uint8)
    assert q4.pairs(codes).tolist() == [[0x21, 0x03], [0x0F, 0x0F]]


def test_in_half_precision_inputs_are_not_rounded() -> None:
    model = graph_of(np.eye(64, dtype=np.float32), RANDOM.standard_normal((50, 64)).astype(np.float32))
    model = q4.quantize(model, {"weight": np.eye(64, dtype=np.float32)})
    levels = [a.i for node in model.graph.node for a in node.attribute if a.name == "accuracy_level"]
    assert levels == [q4.INT8_PRODUCTS] * 2
    ids = RANDOM.integers(0, 50, (3, 7))
    full = run(model, ids)
    halved = q4.half(onnx.shape_inference.infer_shapes(model), None)
    assert not [a for node in halved.graph.node for a in node.attribute if a.name == "accuracy_level"]
    assert np.abs(run(halved, ids) - full).max() < 0.02 * np.abs(full).max()
