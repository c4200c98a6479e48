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
from fakes import artifact_of
from onnx import numpy_helper, parser

from bge_export.contracts import Artifact, Target
from bge_export.formats import find_format
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


def test_files_of_the_exporters_have_none_that_the_gate_refuses(tiny_export) -> None:
    found = operators_of(tiny_export.folder / "onnx/model.onnx", "onnx")
    assert "MatMul" in found
    assert not [name for name in found if "::" in name]


def test_formats_that_are_not_known_have_no_list() -> None:
    assert find_format("checkpoint").contents is None
    assert known_operators([artifact_at(Path("model"), "checkpoint")]) == {}
