"""The operators of each format, read from bytes: bodies, functions, arguments and files that mean harm."""

import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino
import openvino.opset13 as ops
import pytest
import torch
from exporting import export_model
from fakes import artifact_of, report_of
from onnx import numpy_helper, parser

from bge_export.contracts import Artifact, Target
from bge_export.exporters.openvino import OpenVinoExporter
from bge_export.exporters.torchscript import TorchScriptExporter
from bge_export.formats import find_format
from bge_export.formats.contents.openvino import contents
from bge_export.parity.gate.operators import operator_failures
from bge_export.parity.measure.operators import MOST_KINDS, MOST_LETTERS, known_operators


def artifact_at(path: Path, format_name: str) -> Artifact:
    return replace(artifact_of(), target=Target(format_name, "fp32"), root=path.parent, model=path.name)


def operators_of(path: Path, format_name: str) -> tuple[str, ...]:
    """Return what a report lists of a file."""
    (found,) = known_operators([artifact_at(path, format_name)]).values()
    return found


def onnx_file(folder: Path, nodes: str, functions: str = "", **values: np.ndarray) -> Path:
    domains = '"" : 17, "com.example" : 1, "com.microsoft" : 1, "own" : 1'
    made = parser.parse_model(
        f"<ir_version: 8, opset_import: [{domains}]> g (float[2,3] x) => (float[2,3] y) {{ {nodes} }} {functions}"
    )
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.save(made, folder / "model.onnx")
    return folder / "model.onnx"


BRANCH = (
    "y = If(yes) <then_branch = one () => (float[2,3] a) { a = RandomNormalLike(x) },"
    " else_branch = two () => (float[2,3] b) { b = Identity(x) }>"
)
FUNCTION = '<opset_import: ["" : 17], domain: "own"> Mine (given) => (out) { out = Bernoulli(given) }'

ONNX = {
    "plain": ("a = Relu(x)\n y = ai.onnx.Neg(a)", "", {"Relu", "Neg"}),
    "random": ("a = RandomNormal<shape=[2,3]>()\n y = Add(x, a)", "", {"RandomNormal", "Add"}),
    "a branch": (BRANCH, "", {"If", "RandomNormalLike", "Identity"}),
    "a function": ("y = own.Mine(x)", FUNCTION, {"own::Mine", "function::own.Mine", "Bernoulli"}),
    "somebody else's": ("a = com.example.Add(x, x)\n y = com.microsoft.Gelu(a)", "",
                        {"com.example::Add", "com.microsoft::Gelu"}),
    "dropout": ("y = Dropout(x)", "", {"Dropout"}),
    "dropout that trains": ("y = Dropout(x, half, yes)", "", {"Dropout (training)"}),
    "dropout that does not": ("y = Dropout(x, half, no)", "", {"Dropout"}),
    "dropout that the input decides about": (
        "s = ReduceSum<keepdims=0>(x)\n t = Cast<to=9>(s)\n y = Dropout(x, half, t)", "",
        {"ReduceSum", "Cast", "Dropout (training)"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONNX)
def test_operators_of_onnx_files(kind: str, tmp_path: Path) -> None:
    nodes, functions, expected = ONNX[kind]
    values = {"yes": np.array(True), "no": np.array(False), "half": np.array(0.5, np.float32)}
    path = onnx_file(tmp_path, nodes, functions, **values)
    assert set(operators_of(path, "onnx")) == expected


def test_operators_of_openvino_models(tmp_path: Path) -> None:
    x = ops.parameter([2, 3], np.float32)
    drawn = ops.random_uniform(ops.constant(np.array([2, 3])), np.float32(0), np.float32(1), "f32")
    openvino.save_model(openvino.Model([ops.add(x, drawn)], [x]), tmp_path / "model.xml", compress_to_fp16=False)
    assert {"RandomUniform", "Add", "Parameter", "Result"} <= set(operators_of(tmp_path / "model.xml", "openvino"))


def test_operators_in_a_body_and_of_an_extension(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text(
        '<net name="g" version="11"><layers>'
        '<layer id="0" name="l" type="Loop" version="opset5"><body><layers>'
        '<layer id="0" name="r" type="Multinomial" version="opset13"/></layers></body></layer>'
        '<layer id="1" name="m" type="Mine" version="extension"/></layers></net>'
    )
    assert operators_of(tmp_path / "model.xml", "openvino") == ("Loop", "Multinomial", "extension::Mine")


def scripted(folder: Path, function: Callable[..., torch.Tensor]) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(function), str(folder / "model.pt"))
    return set(operators_of(folder / "model.pt", "torchscript"))


def drawing(x: torch.Tensor) -> torch.Tensor:
    return x + torch.rand_like(x)


def training(x: torch.Tensor) -> torch.Tensor:
    return torch.dropout(x, 0.1, True)


def still(x: torch.Tensor) -> torch.Tensor:
    return torch.dropout(x, 0.1, False)


def branching(x: torch.Tensor) -> torch.Tensor:
    if bool(x.sum() > 0):
        x = torch.bernoulli(x)
    return x


def looping(x: torch.Tensor) -> torch.Tensor:
    for _ in range(x.size(0)):
        x = torch.relu(x)
    return x


def attending(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(x, x, x, None, 0.5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (drawing, {"aten::rand_like", "aten::add"}),
        (training, {"aten::dropout (training)"}),
        (still, {"aten::dropout"}),
        (branching, {"prim::If", "aten::bernoulli"}),
        (looping, {"prim::Loop", "aten::relu"}),
        (attending, {"aten::scaled_dot_product_attention (training)"}),
    ],
)
def test_operators_of_torchscript_archives(
    function: Callable[..., torch.Tensor], expected: set[str], tmp_path: Path
) -> None:
    found = scripted(tmp_path, function)
    assert expected <= found
    assert {name for name in found if "training" in name} <= expected


def archive(folder: Path, text: str) -> Path:
    with zipfile.ZipFile(folder / "model.pt", "w") as file:
        file.writestr("model/code/__torch__.py", text)
    return folder / "model.pt"


def test_operators_of_no_library_and_other_spellings(tmp_path: Path) -> None:
    text = "def forward(x):\n  _0 = ops.mine.draw(x)\n  return torch.dropout(x, 0.1, train=flag)\n"
    assert operators_of(archive(tmp_path, text), "torchscript") == ("aten::dropout (training)", "mine::draw")


def refused(path: Path, format_name: str) -> list[str]:
    """Return what the gate says of a file's operators."""
    report = report_of(operators=operators_of(path, format_name))
    return [one.message for one in operator_failures(report) if one.rule == "operators"]


METHOD = "class M(Module):\n  n : Tensor\n  def forward(self, x: Tensor) -> Tensor:\n    {}\n    return x\n"

STATEFUL_CODE = {
    "an attribute": "self.n = torch.add(x, 1)",
    "an attribute of a submodule": "child = self.child\n    child.n = x",
    "one of two targets": "a, self.n, = torch.split(x, 1)",
    "an attribute with its type": "self.n : Tensor = x",
    "an attribute that is added to": "self.n += x",
    "an attribute in place": "n = self.n\n    _0 = torch.add_(n, 1)",
    "a child's attribute in place": "child = self.child\n    _0 = torch.zero_(child.bias)",
    "a name of an attribute": "n = self.n\n    n += x",
    "a view": "n = self.n\n    a = torch.select(n, 0, 0)\n    b = torch.view(a, [1])\n    _0 = torch.copy_(b, x)",
    "by keyword": "_0 = torch.add(x, x, out=self.n)",
    "itself by keyword": "_0 = torch.add_(self=self.n, other=x)",
    "by a method": "_0 = (self.n).add_(1)",
    "a constant": "_0 = torch.add_(CONSTANTS.c0, 1)",
    "a list": "l = self.l\n    _0 = torch.append(l, x)",
    "a list that holds it": "l = [torch.zeros([1])]\n    _0 = torch.append(l, self.n)\n    _1 = torch.add_(l[0], 1)",
    "shared memory": "a = torch.zeros([1])\n    _0 = torch.set_(a, self.n)\n    _1 = torch.add_(a, 1)",
    "an element": 'd = self.d\n    d["a"] = x',
    "an odd name": '_0 = torch.add_(getattr(self, "0"), 1)',
    "the private operator": "_0 = ops.aten.add_(self.n, 1)",
    "statistics": "_0 = torch.batch_norm(x, None, None, self.mean, self.var, True, 0.1, 1e-5, False)",
}


@pytest.mark.parametrize("kind", STATEFUL_CODE)
def test_code_of_torch_that_keeps_a_state_is_refused(kind: str, tmp_path: Path) -> None:
    text = METHOD.format(STATEFUL_CODE[kind])
    assert any(
        "keeps a state from one call to the next" in reason
        for reason in refused(archive(tmp_path, text), "torchscript")
    )


def test_code_of_torch_that_writes_to_new_memory_keeps_no_state(tmp_path: Path) -> None:
    code = (
        "a = torch.add(self.n, x)\n    b = torch.view(a, [1])\n    c = torch.add_(b, self.n)\n    _0 = torch.relu_(c)"
    )
    assert refused(archive(tmp_path, METHOD.format(code)), "torchscript") == []


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = torch.nn.Buffer(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return x + self.calls


def test_a_scripted_module_that_counts_its_calls_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Counting()), str(tmp_path / "model.pt"))
    (reason,) = refused(tmp_path / "model.pt", "torchscript")
    assert "aten::add_ (state), which keeps a state" in reason


METHODS = {
    "(x).bernoulli(0.5)": "aten::bernoulli",
    "(torch.relu(x)).normal_()": "aten::normal_",
    "(x).uniform_()": "aten::uniform_",
    "(self.n).random_()": "aten::random_",
    "(x).dropout(0.1, True)": "aten::dropout (training)",
    "(x).dropout(0.1, train=y)": "aten::dropout (training)",
    "ops.aten.dropout(x, 0.1, True)": "aten::dropout (training)",
    "torch._standard_gamma(x)": "aten::_standard_gamma",
    "torch._sample_dirichlet(x)": "aten::_sample_dirichlet",
    "torch._fused_dropout(x, 0.5)": "aten::_fused_dropout",
    "torch.empty([2])": "aten::empty",
    "(x).new_empty([2])": "aten::new_empty",
    "torch.empty_like(x)": "aten::empty_like",
}


@pytest.mark.parametrize("call", METHODS)
def test_random_numbers_by_method_and_by_private_names_are_refused(call: str, tmp_path: Path) -> None:
    path = archive(tmp_path, f"class M(Module):\n  def forward(self, x, y):\n    return {call}\n")
    assert METHODS[call] in operators_of(path, "torchscript")
    assert any(f"{METHODS[call]}, which draws random numbers" in reason for reason in refused(path, "torchscript"))


def test_a_method_that_trains_by_no_argument_and_calls_of_submodules_pass(tmp_path: Path) -> None:
    text = METHOD.format("a = (self.child).forward(x, )\n    x = (a).dropout(0.1, False)")
    assert operators_of(archive(tmp_path, text), "torchscript") == ("aten::dropout",)
    assert refused(tmp_path / "model.pt", "torchscript") == []


@pytest.mark.parametrize("code", ["draw = x.bernoulli\n    return draw(0.5)", "return getattr(x, \"bernoulli\")(0.5)",
                                  "torch = x\n    return torch.add_(1)", "return x and y"])  # fmt: skip
def test_code_of_torch_that_hides_what_it_calls_or_decides_is_refused(code: str, tmp_path: Path) -> None:
    text = f"class M(Module):\n  def forward(self, x, y):\n    a = torch.relu(x)\n    {code}\n"
    (reason,) = refused(archive(tmp_path, text), "torchscript")
    assert "not looked at" not in reason


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.onnx", b"\x08\x08 not a model"),
        ("model.xml", b"<net>"),
        ("model.pt", b"not an archive"),
        ("model.pt", "(" * 100_000),
        ("model.pt", "x = " + "-" * 200_000 + "1"),
        ("model.pt", "x = é"),
    ],
)
def test_a_file_that_cannot_be_read_has_the_reason_in_place_of_operators(
    name: str, content: bytes | str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        archive(tmp_path, content)
    kind = {"model.onnx": "onnx", "model.xml": "openvino", "model.pt": "torchscript"}[name]
    found = operators_of(path, kind)
    assert content == "x = é" or found[0].startswith(f"unreadable::is not a file of {kind}: ")


def test_a_file_of_too_many_kinds_says_so(tmp_path: Path) -> None:
    text = "\n".join(f"_{number} = ops.mine.n{number}(x)" for number in range(MOST_KINDS + 1))
    found = operators_of(archive(tmp_path, text), "torchscript")
    assert len(found) == MOST_KINDS + 1
    assert found[-1].startswith("more than")


def test_a_long_name_never_loses_that_it_is_of_a_domain(tmp_path: Path) -> None:
    (found,) = operators_of(archive(tmp_path, f"x = ops.{'m' * 200}.draw(x)"), "torchscript")
    assert found.startswith("too long::mmm")
    assert len(found) == MOST_LETTERS


def test_a_layer_of_no_set_of_operators_is_not_openvinos(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text('<net><layers><layer id="0" type="RandomUniform"/></layers></net>')
    assert operators_of(tmp_path / "model.xml", "openvino") == ("no opset::RandomUniform",)


LAYERS = {
    '<layer id="0" type="ReadValue" version="opset6"/>': "keeps a state",
    '<layer id="0" type="Assign" version="opset3"/>': "keeps a state",
    '<layer id="0" type="assign" version="opset6"/>': "keeps a state",
    '<layer id="0" type="randomuniform" version="opset8"/>': "draws random numbers",
    '<layer id="0" type="TENSORITERATOR" version="opset1"/>': "decides by the input",
    '<layer xmlns="x" id="0" type="RandomUniform" version="opset8"/>': "namespace",
    '<layer xmlns:a="x" id="0" type="RandomUniform" version="opset8"/>': "namespace",
    '<a:layer id="0" type="RandomUniform" version="opset8"/>': "namespace",
    '<layer a:id="0" type="RandomUniform" version="opset8"/>': "namespace",
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_openvino_that_no_text_can_prove_are_refused_however_they_are_spelled(
    layer: str, tmp_path: Path
) -> None:
    plain = '<layer id="1" type="Add" version="opset1"/>'
    (tmp_path / "model.xml").write_text(f"<net><layers>{plain}{layer}</layers></net>")
    assert any(LAYERS[layer] in reason for reason in refused(tmp_path / "model.xml", "openvino"))


def test_constants_of_openvino_count_in_any_case(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text(
        '<net><layers><layer id="0" type="CONST" version="opset1">'
        '<data element_type="f16" shape="2,3"/></layer><layer id="1" type="RESULT" version="opset1"/></layers>'
        '<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>'
    )
    assert contents(tmp_path / "model.xml").weights == {"float16": 6}


@pytest.mark.parametrize(
    ("exporter", "format_name"),
    [
        (TorchScriptExporter(sentence_embedding=True), "torchscript"),
        (TorchScriptExporter(layout="eland"), "torchscript"),
        (OpenVinoExporter(), "openvino"),
    ],
)
def test_our_own_traces_have_no_operator_that_the_gate_refuses(
    exporter: TorchScriptExporter | OpenVinoExporter, format_name: str, tiny: Path, tmp_path: Path
) -> None:
    folder = export_model(exporter, str(tiny), tmp_path / "out").folder
    (path,) = folder.rglob("*.xml" if format_name == "openvino" else "*.pt")
    assert refused(path, format_name) == []
    assert not [name for name in operators_of(path, format_name) if "state" in name or name.endswith("_")]


def test_files_of_the_exporters_have_none_that_the_gate_refuses(tiny_export) -> None:
    found = operators_of(tiny_export.folder / "onnx/model.onnx", "onnx")
    assert "MatMul" in found
    assert not [name for name in found if "::" in name]


def test_formats_that_are_not_known_have_no_list() -> None:
    assert find_format("checkpoint").contents is None
    assert known_operators([artifact_at(Path("model"), "checkpoint")]) == {}
