"""4 bits of NormalFloat: what is written, which clients take it, and which do not."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import needs_client
from exporting import export_transformersjs
from noise_limits import noise_limits

from bge_export.bundle.manifest import read_bundle
from bge_export.compatibility.check import check_targets
from bge_export.contracts import TokenBatch
from bge_export.heads.dense import dense_head
from bge_export.precision.graphs import bnb4
from bge_export.runtimes import find_runtime


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bnb4")
    done = export_transformersjs(
        str(tiny), root / "out", dtypes=["bnb4"], weights=False, thresholds=noise_limits(root), repository="some/tiny"
    )
    assert done.proof is not None
    assert done.proof.verdict.failures == ()
    return done.folder


def test_every_product_with_a_constant_is_in_four_bits(folder: Path) -> None:
    graph = onnx.load(folder / "onnx/model_bnb4.onnx").graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulBnb4"]
    assert products
    for node in products:
        facts = {one.name: one.i for one in node.attribute}
        assert (facts["quant_type"], facts["block_size"]) == (1, bnb4.BLOCK)
        assert weights[node.input[1]].dims[0] == (facts["K"] * facts["N"] + 1) // 2
    assert not [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    assert len(weights) == len(graph.initializer)


def test_layers_that_share_a_weight_share_its_bits() -> None:
    weight = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 64]) for name in "xz"]
    nodes = [onnx.helper.make_node("MatMul", [a, "w"], [b], b) for a, b in ("xy", "yz")]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = bnb4.convert(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    assert sorted(tensor.name for tensor in model.graph.initializer) == ["w_Bnb4", "w_absmax"]


def test_clients_and_runtimes_without_the_operator_are_told_from_those_with_it(folder: Path) -> None:
    targets = ("transformers.js@2.5", "transformers.js@2.17", "transformers.js@3", "transformers.js@4")
    found = check_targets(folder, targets, dtypes=["bnb4"])
    states = {one.target: one.state for one in found.files if one.file}
    assert states == dict(zip(targets, ("not for it", "not for it", "fits", "fits"), strict=True))
    assert set(found.refused) == set(targets[:2])
    (artifact,) = read_bundle(folder)[1]
    assert not find_runtime("openvino").reads(artifact, "cpu")
    assert [find_runtime("transformersjs").reads(artifact, f"node@{name}") for name in ("2.17", "3")] == [False, True]


@pytest.mark.parametrize("device", ["node@3", "node@4"])
def test_a_client_gives_onnx_runtimes_vector(folder: Path, device: str) -> None:
    needs_client(device)
    (artifact,) = read_bundle(folder)[1]
    ids = np.array([[2, 10, 11, 12, 3]])
    batch = TokenBatch(ids, np.ones_like(ids), ids * 0)
    rows = []
    for runtime, where in (("onnxruntime", "cpu"), ("transformersjs", device)):
        session = find_runtime(runtime).open(artifact, where, 1)
        given = dense_head(artifact.spec).rows(session.run(batch), batch.attention_mask)
        rows.append(given["last_hidden_state"][0].astype(np.float64))
        session.close()
    assert rows[0] @ rows[1] > 0.999999


def test_the_card_loads_the_file_that_there_is(folder: Path) -> None:
    card = (folder / "README.md").read_text("utf-8")
    assert "dtype: 'bnb4'" in card
    assert "quantized: " not in card
