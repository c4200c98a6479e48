"""What a model file holds is read without running it, and a file is only what its target says."""

import io
import re
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from fakes import artifact_of
from model_files import ROWS, SIZE, edge, elsewhere, float_product, graph_of, write_ir, write_onnx
from onnx import TensorProto, helper
from test_layers import HEAVY, loaded_after

from bge_export.contracts import Artifact, Target
from bge_export.errors import ArtifactError
from bge_export.exporters import find_exporter, format_names
from bge_export.formats import find_format, formats, read_contents
from bge_export.formats.torchscript import PLAIN_FILE
from bge_export.parity.gate.contents import content_failures, differences
from bge_export.precision import model_files, precision_names


def artifact_at(root: Path, target: str, model: str = "") -> Artifact:
    format_name, _, precision = target.partition("-")
    name = model or model_files()[target]
    return replace(artifact_of(), root=root, target=Target(format_name, precision), model=name, files=(name,))


def refusals(artifact: Artifact) -> str:
    return "\n".join(bad.message for bad in content_failures(artifact))


def test_every_target_that_is_written_has_a_name_and_every_format_is_read() -> None:
    for name in format_names():
        assert find_format(name).contents is not None
        for precision in find_exporter(name).precisions:
            assert f"{name}-{precision}" in model_files() or name == "torchscript"


def test_a_file_is_read_without_the_library_of_its_format(tiny_export) -> None:
    model = str(tiny_export.folder / "onnx/model.onnx")
    code = (
        "from pathlib import Path\nfrom bge_export.formats import find_format\n"
        f"found = find_format('onnx').contents(Path({model!r}))\n"
        "assert found.operators['MatMul'] and found.weights['float32']"
    )
    assert not loaded_after(code) & HEAVY
    assert len(formats()) == 3


@pytest.mark.parametrize("said", sorted(precision_names()))
@pytest.mark.parametrize("held", sorted(precision_names()))
def test_an_onnx_file_passes_as_what_it_holds_and_as_nothing_else(tmp_path: Path, held: str, said: str) -> None:
    artifact = artifact_at(tmp_path, f"onnx-{said}")
    write_onnx(tmp_path / artifact.model, *graph_of(held))
    found = refusals(artifact)
    assert (found == "") == (held == said), found
    assert held == said or f"onnx-{said}: other-content" in found


@pytest.mark.parametrize("said", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("held", ["fp32", "fp16", "int8"])
def test_an_openvino_file_passes_as_what_it_holds_and_as_nothing_else(tmp_path: Path, held: str, said: str) -> None:
    artifact = artifact_at(tmp_path, f"openvino-{said}")
    write_ir(tmp_path / artifact.model, {"fp32": "f32", "fp16": "f16", "int8": "i8"}[held])
    artifact = replace(artifact, files=(artifact.model, str(Path(artifact.model).with_suffix(".bin"))))
    assert (refusals(artifact) == "") == (held == said)
    assert "other-files" in refusals(replace(artifact, files=artifact.files[:1]))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.float64])
def test_a_torchscript_file_of_another_type_is_refused(tmp_path: Path, kind: torch.dtype) -> None:
    class Product(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(ROWS, ROWS, dtype=kind))
            self.again = torch.nn.Parameter(torch.ones(ROWS, ROWS, dtype=kind))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight @ self.again

    (tmp_path / "torchscript").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format, which Elasticsearch needs
        traced = torch.jit.trace(Product().eval(), torch.ones(1, ROWS, dtype=kind))
        torch.jit.save(traced, tmp_path / PLAIN_FILE)
    artifact = artifact_at(tmp_path, "torchscript-fp32", PLAIN_FILE)
    contents = read_contents(artifact)
    assert contents is not None
    assert contents.weights[str(kind).removeprefix("torch.")] == 2 * SIZE
    assert (refusals(artifact) == "") == (kind == torch.float32)


@pytest.mark.parametrize("target", ["onnx-fp32", "openvino-fp32", "torchscript-fp32", "onnx-int3"])
def test_a_file_has_the_name_of_its_target(tmp_path: Path, target: str) -> None:
    name = {"onnx": "onnx/model_q4.onnx", "openvino": "openvino/model.xml"}.get(
        target.partition("-")[0], "torchscript/x.pt"
    )
    artifact = artifact_at(tmp_path, target, name)
    write_onnx(tmp_path / "good.onnx", *graph_of("fp32"))
    contents = read_contents(replace(artifact, target=Target("onnx", "fp32"), model="good.onnx"))
    assert contents is not None
    assert any(f"{name} is called {target}" in got for got, _ in differences(artifact, contents))


def test_half_of_the_matrices_in_float32_are_no_four_bits(tmp_path: Path) -> None:
    nodes, weights = graph_of("bnb4")
    node, weight = float_product()
    artifact = artifact_at(tmp_path, "onnx-bnb4")
    write_onnx(tmp_path / artifact.model, [*nodes, node], [*weights, weight])
    assert "49." in refusals(artifact)
    assert "at least 75% in MatMulBnb4 4" in refusals(artifact)


def test_tables_that_are_read_by_index_stay_float_in_rounded_files(tmp_path: Path) -> None:
    nodes, weights = graph_of("q4")
    gather = helper.make_node("Gather", ["table", "ids"], ["rows"])
    table = helper.make_tensor("table", TensorProto.FLOAT, [8 * ROWS, ROWS], [0.1] * 8 * SIZE)
    artifact = artifact_at(tmp_path, "onnx-q4")
    write_onnx(tmp_path / artifact.model, [*nodes, gather], [*weights, table])
    assert refusals(artifact) == ""


@pytest.mark.parametrize("used", [True, False])
def test_a_matrix_that_is_also_read_by_index_is_no_table(tmp_path: Path, used: bool) -> None:
    """A Gather would hide float weights behind one small product of four bits."""
    nodes, weights = graph_of("bnb4")
    node, weight = float_product()
    gather = helper.make_node("Gather", [weight.name, "ids"], ["rows"])
    artifact = artifact_at(tmp_path, "onnx-bnb4")
    outputs = ["y", *node.output, *(["rows"] if used else [])]
    write_onnx(tmp_path / artifact.model, [*nodes, node, gather], [*weights, weight], outputs)
    assert "at least 75% in MatMulBnb4 4" in refusals(artifact)


PACKED = sorted(name for name in precision_names() if name not in ("fp32", "fp16"))


@pytest.mark.parametrize("said", PACKED)
@pytest.mark.parametrize("way", ["nothing reads", "only its shape is read", "a node reads it that nothing reads"])
def test_weights_that_the_outputs_do_not_depend_on_count_for_nothing(tmp_path: Path, said: str, way: str) -> None:
    """A float32 file may store the weights of any other precision beside its own, with the operators that read them."""
    node, weight = float_product(name="real")
    nodes, weights = graph_of(said)
    outputs = list(node.output)
    if way == "only its shape is read":
        nodes = [*nodes, helper.make_node("Shape", ["y"], ["shape"])]
        outputs.append("shape")
    elif way == "a node reads it that nothing reads":
        nodes = [*nodes, helper.make_node("Relu", ["y"], ["unused"])]

    artifact = artifact_at(tmp_path, f"onnx-{said}")
    write_onnx(tmp_path / artifact.model, [node, *nodes], [weight, *weights], outputs)
    assert "100.0% of its weights in float32" in refusals(artifact)


@pytest.mark.parametrize("operator", ["QuantizeLinear", "FakeQuantize"])
def test_an_operator_that_nothing_reads_makes_no_precision(tmp_path: Path, operator: str) -> None:
    artifact = artifact_at(tmp_path, "onnx-int8" if operator == "QuantizeLinear" else "openvino-int8")
    path = tmp_path / artifact.model
    if operator == "QuantizeLinear":
        nodes, weights = graph_of("int8")
        nodes[1].input[0] = "x"
        write_onnx(path, nodes, weights, ["y"])
    else:
        write_ir(path, "i8")
        path.write_text(path.read_text("utf-8").replace(edge(2, 1), ""), "utf-8")

    assert f"has no {operator} that works" in refusals(artifact)


def test_a_weight_that_is_stored_twice_or_also_computed_is_refused(tmp_path: Path) -> None:
    """Runtimes take the last one, or the first, and none says so."""
    node, weight = float_product()
    other = helper.make_tensor(weight.name, TensorProto.INT8, [2], [1, 1])
    maker = helper.make_node("Relu", ["x"], [weight.name])
    artifact = artifact_at(tmp_path, "onnx-fp32")
    for nodes, weights in (([node], [weight, other]), ([maker, node], [weight]), ([maker, maker, node], [])):
        write_onnx(tmp_path / artifact.model, nodes, weights, list(node.output))
        assert "twice" in refusals(artifact) or "two nodes give" in refusals(artifact)


def test_operators_of_the_files_themselves_are_judged_whatever_a_report_lists(tmp_path: Path) -> None:
    node, weight = float_product()
    drawn = helper.make_node("RandomNormalLike", ["x"], ["noise"])
    artifact = artifact_at(tmp_path, "onnx-fp32")
    write_onnx(tmp_path / artifact.model, [node, drawn], [weight])
    assert "has RandomNormalLike, which draws random numbers" in refusals(artifact)


@pytest.mark.parametrize("said", ["fp16", "int8"])
def test_constants_that_the_results_do_not_depend_on_count_for_nothing_in_openvino(tmp_path: Path, said: str) -> None:
    artifact = artifact_at(tmp_path, f"openvino-{said}")
    path = tmp_path / artifact.model
    write_ir(path, "f32")
    kind = {"fp16": "f16", "int8": "i8"}[said]
    dead = (
        f'<layer id="7" type="Const" version="opset1"><data element_type="{kind}" shape="900, 900"/></layer>'
        '<layer id="8" type="FakeQuantize" version="opset1"/><layer id="9" type="ShapeOf" version="opset3"/>'
        '<layer id="10" type="Result" version="opset1"/></layers>'
    )
    text = path.read_text("utf-8").replace("</layers>", dead)
    for edges in (edge(7, 8), edge(7, 8) + edge(8, 9) + edge(9, 10)):
        path.write_text(text.replace("</edges>", f"{edges}</edges>"), "utf-8")
        assert "100.0% of its weights in float32" in refusals(artifact)


CONST = '<layer id="0" type="Const" version="opset1"><data element_type="f16" shape="9, 9"/></layer>'

SECOND = {
    "a list of layers": ("</layers>", "</layers><layers></layers>", "two elements net/layers"),
    "a list of edges": ("</edges>", "</edges><edges></edges>", "two elements net/edges"),
    "settings": ("</layer>", "<data/></layer>", "two elements net/layers/layer/data"),
    "a layer": ("</layers>", f"{CONST}</layers>", "two of its layers have the id 0"),
    "an edge": ("</edges>", f"{edge(2, 3)}</edges>", "two edges go to the port 0 of the layer 3"),
    "a spelling": ('to-layer="3"', 'to-layer="03"', "no number that OpenVINO writes"),
}


@pytest.mark.parametrize("kind", SECOND)
def test_what_openvino_reads_once_is_refused_twice(tmp_path: Path, kind: str) -> None:
    artifact = artifact_at(tmp_path, "openvino-fp32")
    write_ir(tmp_path / artifact.model, "f32")
    path = tmp_path / artifact.model
    old, new, reason = SECOND[kind]
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")
    assert reason in refusals(artifact)


@pytest.mark.timeout(60)
def test_files_of_more_parts_than_any_model_are_refused_in_bounded_time(tmp_path: Path) -> None:
    (tmp_path / "onnx").mkdir()
    nodes = field(1, b"") * 400_000
    length = bytes(len(nodes) >> shift & 127 | (128 if shift < 28 else 0) for shift in range(0, 35, 7))
    (tmp_path / "onnx/model.onnx").write_bytes(b"\x3a" + length + nodes)
    assert "more than 300000 operators" in refusals(artifact_at(tmp_path, "onnx-fp32"))

    artifact = artifact_at(tmp_path, "openvino-fp32")
    write_ir(tmp_path / artifact.model)
    path = tmp_path / artifact.model
    text = path.read_text("utf-8")
    path.write_text(text.replace("</edges>", '<edge from-layer="1"/>' * 10 + "</edges>"), "utf-8")
    assert "no number that OpenVINO writes" in refusals(artifact)
    path.write_text(text.replace("</net>", "<a>" * 1000 + "</a>" * 1000 + "</net>"), "utf-8")
    assert "nested deeper than 200" in refusals(artifact)


def test_operators_cannot_unpack_more_weights_than_the_file_stores(tmp_path: Path) -> None:
    nodes, weights = graph_of("bnb4")
    node, weight = float_product()
    for attribute in nodes[0].attribute:
        if attribute.name == "K":
            attribute.i = 1000 * ROWS
    artifact = artifact_at(tmp_path, "onnx-bnb4")
    write_onnx(tmp_path / artifact.model, [*nodes, node], [*weights, weight])
    assert "unpack more weights than it stores" in refusals(artifact)


@pytest.mark.parametrize("place", ["net", "meta_data", "rt_info"])
def test_operators_of_an_openvino_file_count_only_where_openvino_reads_them(tmp_path: Path, place: str) -> None:
    artifact = artifact_at(tmp_path, "openvino-fp16")
    write_ir(tmp_path / artifact.model, "f32")
    fake = '<layer id="9" type="Const" version="opset1"><data element_type="f16" shape="100000000"/></layer>'
    fake = fake if place == "net" else f"<{place}>{fake}</{place}>"
    path = tmp_path / artifact.model
    path.write_text(path.read_text("utf-8").replace("</net>", f"{fake}</net>"), "utf-8")
    assert "where OpenVINO reads none" in refusals(artifact)


def test_a_constant_that_another_operator_reads_too_is_no_table_in_openvino(tmp_path: Path) -> None:
    artifact = artifact_at(tmp_path, "openvino-fp32")
    write_ir(tmp_path / artifact.model, "f32")
    path = tmp_path / artifact.model
    gather = '<layer id="8" type="Gather" version="opset8"/></layers>'
    edges = edge(0, 8) + "</edges>"
    path.write_text(path.read_text("utf-8").replace("</layers>", gather).replace("</edges>", edges), "utf-8")
    found = read_contents(artifact)
    assert found is not None
    assert sum(found.tables.values()) == 0


def test_weights_are_found_wherever_a_graph_can_hold_them(tmp_path: Path) -> None:
    """In subgraphs, constants, sparse tensors, functions and lists of floats, and so are names of other files."""
    tensors = [
        elsewhere(helper.make_tensor(f"t{place}", TensorProto.FLOAT, [4], [1.0] * 4), f"file{place}")
        for place in range(5)
    ]
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensors[0])], "inner", [], [], tensors[1:2]
    )
    indices = helper.make_tensor("indices", TensorProto.INT64, [4], [0, 1, 2, 3])
    nodes = [
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["s"], sparse_value=helper.make_sparse_tensor(tensors[2], indices, [9])),
        helper.make_node("Constant", [], ["f"], value_floats=[1.0, 2.0, 3.0]),
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [9]) for name in ("y", "s", "f", "t3")]
    graph = helper.make_graph(nodes, "graph", [], outputs, [])
    graph.sparse_initializer.append(helper.make_sparse_tensor(tensors[3], indices, [9]))
    function = helper.make_function(
        "own",
        "f",
        [],
        ["z"],
        [helper.make_node("Constant", [], ["z"], value=tensors[4])],
        [helper.make_opsetid("", 17)],
    )
    path = tmp_path / "onnx/model.onnx"
    path.parent.mkdir()
    path.write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())

    contents = read_contents(artifact_at(tmp_path, "onnx-fp32"))
    assert contents is not None
    assert contents.files == {f"file{place}" for place in range(5)}
    assert contents.weights["float32"] == 4 + 4 + 3  # of bodies and functions, which are refused, none counts
    assert contents.operators["If"] == 1


def test_the_reader_finds_what_the_onnx_library_finds(tiny_export) -> None:
    for name in ("model.onnx", "model_fp16.onnx"):
        graph = onnx.load(tiny_export.folder / "onnx" / name).graph
        contents = read_contents(artifact_at(tiny_export.folder, f"onnx-{'fp16' if 'fp16' in name else 'fp32'}"))
        assert contents is not None
        assert sum(contents.operators.values()) == len(graph.node)
        for kind, word in (
            (TensorProto.FLOAT, "float32"),
            (TensorProto.FLOAT16, "float16"),
            (TensorProto.INT64, "int64"),
        ):
            sizes = [onnx.numpy_helper.to_array(t).size for t in graph.initializer if t.data_type == kind]
            assert contents.weights[word] == sum(sizes)


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 1000])
def test_a_damaged_onnx_file_is_refused(tmp_path: Path, cut: int) -> None:
    write_onnx(tmp_path / "onnx/model.onnx", *graph_of("fp32"))
    data = (tmp_path / "onnx/model.onnx").read_bytes()
    (tmp_path / "onnx/model.onnx").write_bytes(data[:cut])
    assert "other-content" in refusals(artifact_at(tmp_path, "onnx-fp32"))


def field(number: int, value: bytes) -> bytes:
    """Return a field of bytes in protobuf's wire format; the libraries refuse to write one so deep."""
    parts = [number << 3 | 2, len(value)]
    numbers = b"".join(bytes((part & 127 | 128, part >> 7)) for part in parts)
    return numbers + value


def test_a_field_whose_number_other_readers_cut_is_refused(tmp_path: Path) -> None:
    """Protobuf in C++ drops the bits of a field's number above 32, so this node is one of the graph to it."""
    node = field(4, b"RandomNormal")
    hidden = bytes((0x8A, 0x80, 0x80, 0x80, 0x10)) + bytes((len(node),)) + node
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(field(7, hidden))
    with pytest.raises(ArtifactError, match="a field has the number"):
        read_contents(artifact_at(tmp_path, "onnx-fp32"))


def test_weights_in_the_defaults_of_a_function_and_in_the_indices_of_sparse_ones_are_found(tmp_path: Path) -> None:
    default = helper.make_attribute("given", elsewhere(helper.make_tensor("t", TensorProto.FLOAT, [4], [1.0] * 4), "a"))
    function = helper.make_function("own", "f", [], ["z"], [helper.make_node("Identity", ["q"], ["z"])], [])
    function.attribute_proto.append(default)
    values = helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0])
    indices = elsewhere(helper.make_tensor("indices", TensorProto.INT64, [1], [0]), "b")
    graph = helper.make_graph([], "graph", [], [], [])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())

    contents = read_contents(artifact_at(tmp_path, "onnx-fp32"))
    assert contents is not None
    assert contents.files == {"a", "b"}


@pytest.mark.parametrize("shape", [[1] * 65, [-1, 4], [2**62] * 100_000])
@pytest.mark.timeout(20)
def test_a_shape_of_no_size_is_refused_at_once(tmp_path: Path, shape: list[int]) -> None:
    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape)
    write_onnx(tmp_path / "onnx/model.onnx", [], [tensor])
    with pytest.raises(ArtifactError, match="a shape has"):
        read_contents(artifact_at(tmp_path, "onnx-fp32"))

    artifact = artifact_at(tmp_path, "openvino-fp32")
    write_ir(tmp_path / artifact.model)
    path = tmp_path / artifact.model
    path.write_text(path.read_text().replace(f"{ROWS}, {ROWS}", ",".join(map(str, shape))))
    with pytest.raises(ArtifactError, match="a shape has"):
        read_contents(artifact)


def test_subgraphs_that_go_deeper_than_any_model_are_refused(tmp_path: Path) -> None:
    graph = b""
    for _ in range(60):
        graph = field(1, field(5, field(6, graph)))
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model.onnx").write_bytes(field(7, graph))
    with pytest.raises(ArtifactError, match="deeper than 50"):
        read_contents(artifact_at(tmp_path, "onnx-fp32"))


@pytest.mark.parametrize(
    "text", ["", "<net>", "<net/>", '<!DOCTYPE a [<!ENTITY b "c">]><net><layer type="Const"/></net>']
)
def test_a_damaged_openvino_file_is_refused(tmp_path: Path, text: str) -> None:
    artifact = artifact_at(tmp_path, "openvino-fp32")
    (tmp_path / "openvino").mkdir()
    (tmp_path / artifact.model).write_text(text)
    with pytest.raises(ArtifactError, match=r"openvino_model\.xml is not a file of openvino"):
        read_contents(artifact)


def test_an_archive_that_is_packed_badly_is_refused(tmp_path: Path) -> None:
    path = tmp_path / PLAIN_FILE
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/constants.pkl", b"constants " * 99)
    data = bytearray(path.read_bytes())
    start = 30 + len("model/constants.pkl")
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    assert "other-content" in refusals(artifact_at(tmp_path, "torchscript-fp32", PLAIN_FILE))


INNER = "".join(" " * depth + "def f(a):\n" for depth in range(90)) + (" " * 90 + "b = a.c(a)\n") * 1_000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (INNER, "a function in another one"),
        ("x = lambda: 0\n", "a function in another one"),
        ("x = 1\n" * 200_000, "more than 262144"),
    ],
)
@pytest.mark.timeout(30)
def test_code_that_would_take_any_time_is_refused(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "torchscript").mkdir()
    with zipfile.ZipFile(tmp_path / PLAIN_FILE, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/code/__torch__.py", code)
    assert reason in refusals(artifact_at(tmp_path, "torchscript-fp32", PLAIN_FILE))


@pytest.mark.parametrize("constants", [None, b"\x80\x02q", b"\x80\x02h\x00Q.", b"no pickle"])
def test_a_damaged_torchscript_file_is_refused_without_unpickling(tmp_path: Path, constants: bytes | None) -> None:
    archive = io.BytesIO()
    if constants is not None:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("model/constants.pkl", constants)
    (tmp_path / "torchscript").mkdir()
    (tmp_path / PLAIN_FILE).write_bytes(archive.getvalue())
    assert "other-content" in refusals(artifact_at(tmp_path, "torchscript-fp32", PLAIN_FILE))


def test_an_openvino_file_whose_inputs_and_outputs_have_no_names_is_read_by_those_of_its_nodes(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13

    given = opset13.parameter([-1, 4], openvino.Type.f32, name="given")
    model = openvino.Model([opset13.relu(given, name="made")], [given], "unnamed")
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)

    text = (tmp_path / "model.xml").read_text("utf-8")
    (tmp_path / "model.xml").write_text(re.sub(r' names="[^"]*"', "", text), "utf-8")
    file = find_format("openvino").read(tmp_path / "model.xml")
    assert file.inputs == ("given",)
    assert len(file.outputs) == 1
