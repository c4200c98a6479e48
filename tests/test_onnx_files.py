"""Graphs that mean harm: circles, shared constants without end, rows gathered a million times, data elsewhere."""

import ast
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import FakeTokenizer, artifact_of
from fuzz.readers import small_graph
from onnx import helper, numpy_helper

import bge_export
from bge_export.compatibility.graphs import read_graph
from bge_export.errors import ArtifactError
from bge_export.formats.onnx import read as read_onnx
from bge_export.inspection.folder import inspect_path
from bge_export.inspection.states.onnx import read_states
from bge_export.saturation import facts_of

READ: tuple[Callable[[Path], object], ...] = (
    read_onnx,
    read_graph,
    inspect_path,
    lambda path: facts_of(path, "onnx"),
)
every_reader = pytest.mark.parametrize("read", READ, ids=["bench", "check", "inspect", "saturation"])


def saved(path: Path, change: Callable[[onnx.GraphProto], object]) -> Path:
    model = small_graph()
    change(model.graph)
    path.write_bytes(model.SerializeToString())
    return path


def node_of(graph: onnx.GraphProto, output: str) -> onnx.NodeProto:
    return next(node for node in graph.node if output in node.output)


CIRCLES: dict[str, Callable[[onnx.GraphProto], object]] = {
    "a transposition of itself": lambda graph: node_of(graph, "v").input.__setitem__(0, "v"),
    "two nodes of each other": lambda graph: node_of(graph, "v").input.__setitem__(0, "b"),
    "activations of the product": lambda graph: node_of(graph, "q").input.__setitem__(0, "last_hidden_state"),
}


TEXTS = {
    "an axis": lambda model: setattr(model.graph.input[0].type.tensor_type.shape.dim.add(), "dim_param", "MARKED"),
    "a description": lambda model: setattr(model.graph, "doc_string", "MARKED"),
    "a domain": lambda model: setattr(model.opset_import.add(), "domain", "MARKED"),
    "an attribute": lambda model: setattr(model.graph.node[0].attribute.add(), "name", "MARKED"),
    "the producer": lambda model: setattr(model, "producer_name", "MARKED"),
    "metadata": lambda model: setattr(model.metadata_props.add(), "value", "MARKED"),
    "a value's name": lambda model: setattr(model.graph.value_info.add(), "name", "MARKED"),
}


@every_reader
@pytest.mark.parametrize("where", TEXTS)
def test_a_text_that_is_not_utf8_is_refused_wherever_it_stands(
    where: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    model = small_graph()
    TEXTS[where](model)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString().replace(b"MARKED", b"\xffARKED"))
    with pytest.raises(ArtifactError, match="is not UTF-8"):
        read(path)


@every_reader
@pytest.mark.parametrize("circle", CIRCLES)
def test_a_graph_with_a_circle_is_refused(tmp_path: Path, circle: str, read: Callable[[Path], object]) -> None:
    path = saved(tmp_path / "model.onnx", CIRCLES[circle])
    start = time.monotonic()
    with pytest.raises(ArtifactError, match="circle"):
        read(path)
    assert time.monotonic() - start < 5


@every_reader
def test_a_tensor_that_two_nodes_give_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = saved(tmp_path / "model.onnx", lambda graph: graph.node.append(node_of(graph, "v")))
    with pytest.raises(ArtifactError, match="two nodes"):
        read(path)


@every_reader
def test_nodes_in_another_order_are_no_circle(tmp_path: Path, read: Callable[[Path], object]) -> None:
    def turn(graph: onnx.GraphProto) -> None:
        nodes = list(graph.node)[::-1]
        del graph.node[:]
        graph.node.extend(nodes)

    path = saved(tmp_path / "model.onnx", turn)
    if read is not inspect_path:  # onnx's own checker wants them in order
        read(path)


def test_constants_that_share_their_parts_are_computed_once(tmp_path: Path) -> None:
    def share(graph: onnx.GraphProto) -> None:
        # Each layer asks twice for the one before it: 2**26 questions without a memory of the answers.
        last = "one"
        graph.initializer.append(numpy_helper.from_array(np.array([0, 0]), "one"))
        for layer in range(26):
            graph.node.append(helper.make_node("Identity", [last], [f"l{layer}"]))
            graph.node.append(helper.make_node("Gather", [last, f"l{layer}"], [f"g{layer}"]))
            last = f"g{layer}"
        node_of(graph, "v").input[0] = "r"
        graph.node.append(helper.make_node("Reshape", ["w", last], ["r"]))

    path = saved(tmp_path / "model.onnx", share)
    start = time.monotonic()
    assert facts_of(path, "onnx").weights == 1
    assert time.monotonic() - start < 5


def test_rows_that_are_gathered_a_million_times_are_not_followed(tmp_path: Path) -> None:
    def gather(graph: onnx.GraphProto) -> None:
        graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1 << 20), np.int8), "wide"))
        graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 16, np.int64), "often"))
        node_of(graph, "v").input[0] = "many"
        graph.node.append(helper.make_node("Gather", ["wide", "often"], ["many"]))

    path = saved(tmp_path / "model.onnx", gather)
    assert "its result would have" in str(facts_of(path, "onnx").first)


@every_reader
@pytest.mark.parametrize("location", ["/etc/passwd", "../x", "a/../../x", "", "a\\b", "x" * 300, "."])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str, read: Callable[[Path], object]) -> None:
    def move(graph: onnx.GraphProto) -> None:
        tensor = graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    path = saved(tmp_path / "model.onnx", move)
    with pytest.raises(ArtifactError, match="in the graph's folder"):
        read(path)


@every_reader
@pytest.mark.parametrize("type_", [99, -1])
def test_a_type_that_onnx_does_not_know_is_refused(tmp_path: Path, type_: int, read: Callable[[Path], object]) -> None:
    def tensor(graph: onnx.GraphProto) -> None:
        graph.initializer[0].data_type = type_

    def end(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.elem_type = type_

    for change in (tensor, end):
        with pytest.raises(ArtifactError, match="type"):
            read(saved(tmp_path / "model.onnx", change))


def test_no_other_module_opens_an_onnx_file_but_one_of_its_own() -> None:
    """Three read back the file that a library has just written for them into a temporary folder."""
    package = Path(bge_export.__file__).parent
    found = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith(("onnx.load", "onnx.ModelProto.FromString"))
    }
    assert found == {"onnx_reader.py", "trace.py", "dynamic.py", "plain.py"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/data"])
def test_states_are_read_from_regular_files_alone(tmp_path: Path, name: str) -> None:
    def move(graph: onnx.GraphProto) -> None:
        tensor = graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "data"

    (tmp_path / "onnx").mkdir()
    saved(tmp_path / "onnx/model.onnx", move)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)

    batch = FakeTokenizer(8).pad([(2, 3)])
    with pytest.raises(OSError, match="not a regular file"):
        read_states(replace(artifact_of(), root=tmp_path), batch)
