"""Model files are written weight by weight, with the bytes that protobuf would write at once."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bge_export.commands import Exported
from bge_export.graph.saving import parts_of


def model_of(sizes: list[int], *, rest: bool) -> onnx.ModelProto:
    weights = [
        helper.make_tensor(f"w{n}", TensorProto.INT8, [size], bytes(size), raw=True) for n, size in enumerate(sizes)
    ]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], initializer=weights, doc_string="text" * rest)
    model = helper.make_model(graph, producer_name="someone" * rest)
    if rest:
        helper.set_model_props(model, {"pooling": "cls", "a": "b"})
        model.functions.append(helper.make_function("own", "f", ["x"], ["y"], nodes, model.opset_import))
    return model


@given(sizes=st.lists(st.sampled_from([0, 1, 100, 127, 128, 16_383, 16_384, 70_000]), max_size=5), rest=st.booleans())
def test_the_parts_are_the_whole(sizes: list[int], rest: bool) -> None:
    model = model_of(sizes, rest=rest)
    parts = list(parts_of(model))
    assert b"".join(parts) == model.SerializeToString(deterministic=True)
    assert max(map(len, parts)) < max([*sizes, 0]) + 1000, "no part holds two weights"


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model_fp16.onnx"])
def test_an_exported_file_is_what_protobuf_would_write(tiny_export: Exported, name: str) -> None:
    path = tiny_export.folder / name
    assert onnx.load(path).SerializeToString(deterministic=True) == path.read_bytes()
