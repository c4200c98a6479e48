"""A graph whose inputs are padded inside gives the vectors that it gave, and is padded as it says."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import needs_client
from exporting import export_transformersjs

from bge_export.bundle.manifest import read_bundle
from bge_export.contracts import Artifact, TokenBatch
from bge_export.precision.int8.write.padding import pad_inputs
from bge_export.runtimes.transformersjs import RUNTIME


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("padding") / "out"
    return export_transformersjs(str(tiny), out, dtypes=["fp32", "int8"], weights=False, check=False).folder


def batch(length: int, padding: int = 0, rows: int = 1) -> TokenBatch:
    ids = np.random.default_rng(length).integers(5, 800, size=(rows, length))
    full = np.pad(np.ones_like(ids), ((0, 0), (0, padding)))
    return TokenBatch(np.pad(ids, ((0, 0), (0, padding))), full, full * 0)


@pytest.mark.parametrize(
    ("length", "longest"),
    [*itertools.product([1, 2, 3, 4, 5, 125, 511, 512], [512]), (125, 510), (508, 510), (509, 510)],
)
def test_a_padded_graph_gives_the_states_of_the_real_tokens(folder: Path, length: int, longest: int) -> None:
    plain = onnx.load(folder / "onnx/model.onnx")
    padded = pad_inputs(onnx.load(folder / "onnx/model.onnx"), longest)
    onnx.checker.check_model(padded)
    inside = {"input_ids", "padding/shape"}
    assert not any("input_ids" in node.input for node in padded.graph.node if not inside & {*node.output, *node.input})
    given = []
    for model in (plain, padded):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        feed = batch(length, rows=2).feed([value.name for value in model.graph.input])
        given.append(session.run(["last_hidden_state"], feed)[0])
    assert given[0].shape == given[1].shape == (2, length, given[0].shape[2])
    assert np.abs(given[0] - given[1]).max() < 1e-5


@pytest.mark.parametrize(("length", "padded"), [(5, 8), (508, 508), (509, 510), (510, 510)])
def test_no_text_is_padded_beyond_the_longest(folder: Path, length: int, padded: int) -> None:
    model = pad_inputs(onnx.load(folder / "onnx/model.onnx"), 510)
    model.graph.output.append(onnx.helper.make_tensor_value_info("input_ids/padded", onnx.TensorProto.INT64, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = batch(length).feed([value.name for value in model.graph.input])
    assert session.run(["input_ids/padded"], feed)[0].shape == (1, padded)


def artifact(folder: Path, precision: str) -> Artifact:
    return next(item for item in read_bundle(folder)[1] if item.target.precision == precision)


def one_vector(artifact: Artifact, device: str) -> bool:
    """Tell whether texts have one vector each in WebAssembly, however far they are padded."""
    needs_client(device)
    session = RUNTIME.open(artifact, device, 1)
    try:
        same = []
        for length in (125, 126, 127):
            rows = [session.run(batch(length, padding))["last_hidden_state"][0, 0] for padding in (0, 1, 2, 3, 9)]
            same += [np.array_equal(rows[0], row) for row in rows[1:]]
    finally:
        session.close()
    return all(same)


@pytest.mark.parametrize("device", ["web@2.5", "web@3"])
def test_padded_inside_a_softmax_gives_one_vector_in_webassembly(folder: Path, tmp_path: Path, device: str) -> None:
    plain = artifact(folder, "fp32")
    assert not one_vector(plain, device)
    padded = Path(shutil.copytree(folder, tmp_path / "padded"))
    onnx.save(pad_inputs(onnx.load(folder / "onnx/model.onnx"), 512), padded / "onnx/model.onnx")
    assert one_vector(dataclasses.replace(plain, root=padded), device)


@pytest.mark.parametrize("device", ["web@2.5", "web@3"])
def test_without_a_softmax_nothing_is_padded_and_a_text_has_one_vector_too(folder: Path, device: str) -> None:
    assert not {"Softmax", "Pad"} & kinds(folder)
    assert one_vector(artifact(folder, "int8"), device)


def test_a_graph_that_keeps_its_softmax_is_padded(unusual: Path, tmp_path: Path) -> None:
    out = export_transformersjs(str(unusual), tmp_path / "out", dtypes=["int8"], weights=False, check=False).folder
    assert {"Softmax", "Pad"} <= kinds(out)


def kinds(folder: Path) -> set[str]:
    return {node.op_type for node in onnx.load(folder / "onnx/model_quantized.onnx").graph.node}
