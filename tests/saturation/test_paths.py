"""No way from an int8 weight to a product is overlooked: its pairs are counted, or the reason names the operator."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fakes import artifact_of
from onnx import helper, numpy_helper
from saturation.models import ACTIVATIONS, PAIRS, WAYS, K, N, written
from saturation.paths import BACK, CODES, FOLLOWED, IMAGE, INTO_FLOAT, UNFOLLOWED, saved

from bge_export.saturation import PairFacts, facts_of, known_facts


@pytest.mark.parametrize("way", FOLLOWED)
def test_a_weight_is_counted_whatever_stands_in_between(way: str, tmp_path: Path) -> None:
    facts = facts_of(saved(tmp_path, FOLLOWED[way]), "onnx")
    assert (facts.weights, facts.pairs, facts.saturating) == (1, PAIRS, PAIRS)
    assert "followed" not in str(facts.first)


@pytest.mark.parametrize("way", UNFOLLOWED)
def test_a_weight_that_cannot_be_followed_counts_as_saturating(way: str, tmp_path: Path) -> None:
    nodes, reason = UNFOLLOWED[way]
    facts = facts_of(saved(tmp_path, nodes), "onnx")
    assert facts.saturating >= 1
    assert reason in str(facts.first)


def test_a_sparse_weight(tmp_path: Path) -> None:
    path = saved(tmp_path, WAYS["MatMul"][0])
    model = onnx.load(path)
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == "w"]
    model.graph.initializer.remove(stored)
    values = numpy_helper.from_array(np.full(K * N, 127, np.int8), "w")
    places = numpy_helper.from_array(np.arange(K * N), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [K, N]))
    onnx.save(model, path)
    assert facts_of(path, "onnx") == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


def test_a_weight_of_one_column(tmp_path: Path) -> None:
    nodes = f"{ACTIVATIONS} b = DequantizeLinear(v, t0, u0)\n y = MatMul(a, b)"
    path = saved(tmp_path, nodes, ends="(float[S,5] x) => (float[S] y)", changes={"v": np.full(K, 127, np.int8)})
    assert facts_of(path, "onnx") == PairFacts(1, K // 2, K // 2, "v", K // 2)


CONVOLUTIONS = {
    "Conv": f"{ACTIVATIONS} b = DequantizeLinear(f, t0, u0)\n y = Conv(a, b)",
    "ConvInteger": f"{CODES} m = ConvInteger(q, f, z)\n {INTO_FLOAT}",
    "QLinearConv": f"{CODES} m = QLinearConv(q, s, z, f, t0, u0, s, z)\n y = DequantizeLinear(m, s, z)",
}


@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_a_convolution_in_each_order_of_its_inputs(way: str, tmp_path: Path) -> None:
    """Two channels and 3 * 3 places: neighbours are places if channels come first, else channels."""
    kernel = np.zeros((3, 2, 3, 3), np.int8)
    kernel[:, :, 0, 0] = 127  # neighbours only where channels come last
    path = saved(tmp_path, CONVOLUTIONS[way], ends=IMAGE, changes={"f": kernel})
    assert facts_of(path, "onnx") == PairFacts(1, 2 * 9 * 3, 3, "f", 3)


def test_attention_of_integers(tmp_path: Path) -> None:
    weight = np.full((4, 12), 127, np.int8)
    nodes = "q = QuantizeLinear(x, s, z)\n y = com.microsoft.QAttention<num_heads=2>(q, qkv, bias, s, t0, m, z, u0)"
    changes = {"qkv": weight, "bias": np.zeros(12, np.float32), "m": np.ones(1, np.int32)}
    path = saved(tmp_path, nodes, ends="(float[1,3,4] x) => (float[1,3,4] y)", changes=changes)
    assert facts_of(path, "onnx") == PairFacts(1, 24, 24, "qkv", 24)


def test_a_recurrent_layer_of_integers(tmp_path: Path) -> None:
    nodes = "y, h = com.microsoft.DynamicQuantizeLSTM<hidden_size=2>(x, w3, r3, , , , , t0, u0, t0, u0)"
    changes = {"w3": np.full((1, 5, 8), 127, np.int8), "r3": np.full((1, 2, 8), 127, np.int8)}
    path = saved(tmp_path, nodes, ends="(float[2,1,5] x) => (float[2,1,1,2] y)", changes=changes)
    assert "DynamicQuantizeLSTM" in str(facts_of(path, "onnx").first)


def test_a_product_inside_a_branch_and_inside_a_loop(tmp_path: Path) -> None:
    branch = (
        f"{ACTIVATIONS} y = If(yes0) <then_branch = one () => (float[S,3] c) {{ {BACK} c = MatMul(a, b) }},"
        " else_branch = two () => (float[S,3] d) { d = Identity(zeros) }>"
    )
    facts = facts_of(saved(tmp_path, branch, changes={"zeros": np.zeros((2, 3), np.float32)}), "onnx")
    assert facts == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)

    loop = (
        f"{ACTIVATIONS} {BACK} y = Loop(two0, yes0, b) <body = one (int64 i, bool c, float[5,3] v) =>"
        " (bool c2, float[5,3] v2) { c2 = Identity(c)\n p = MatMul(a, v)\n v2 = Identity(v) }>"
    )
    facts = facts_of(saved(tmp_path, loop, changes={"two0": np.array(2)}), "onnx")
    assert facts.saturating == 1
    assert "depends on" in str(facts.first)


def test_int8_that_the_attribute_of_an_operator_names(tmp_path: Path) -> None:
    nodes = f"{CODES} c = Transpose(x)\n d = QuantizeLinear<output_dtype=3>(c, s)\n m = MatMulInteger(q, d)\n"
    nodes += INTO_FLOAT
    path = saved(tmp_path, nodes, domains='"" : 21', ends="(float[S,5] x) => (float[S,S] y)")
    assert facts_of(path, "onnx").saturating == 1


@pytest.mark.parametrize(
    "nodes",
    [
        f"{ACTIVATIONS} {BACK} c = Tanh(a)\n y = MatMul(c, b)",
        f"{ACTIVATIONS} {BACK} c = MatMul(a, five)\n d = Transpose(c)\n e = Transpose(d)\n y = MatMul(e, b)",
        f"{ACTIVATIONS} {BACK} c = Add(a, x)\n y = MatMul(c, b)",
        "y = MatMul(x, floats)",
    ],
)
def test_floats_beside_a_weight_are_not_concerned(nodes: str, tmp_path: Path) -> None:
    path = saved(tmp_path, nodes, changes={"five": np.ones((K, K), np.float32)})
    assert facts_of(path, "onnx").weights == 0


def test_one_product_that_cannot_be_followed_does_not_hide_the_next(tmp_path: Path) -> None:
    nodes = (
        f"{ACTIVATIONS} c = Reshape(w, shape7)\n b = DequantizeLinear(c, t0, u0)\n p = MatMul(a, b)\n"
        f"d = DequantizeLinear<axis=1>(w, t, u)\n y = MatMul(a, d)"
    )
    facts = facts_of(saved(tmp_path, nodes), "onnx")
    assert (facts.weights, facts.saturating) == (2, 1 + PAIRS)


def test_a_file_that_cannot_be_read_counts_as_saturating(tmp_path: Path) -> None:
    """A runtime may read what this reader refuses."""
    path = written(tmp_path, WAYS["MatMul"][0])
    path.write_bytes(b"\x08\x08 not a model")
    artifact = replace(artifact_of(), root=tmp_path, model="model.onnx")
    (facts,) = known_facts([artifact]).values()
    assert facts.saturating == 1
    assert "cannot be read" in str(facts.first)


def test_chains_without_end_and_sums_of_themselves_end_soon(tmp_path: Path) -> None:
    model = onnx.load(saved(tmp_path, WAYS["MatMul"][0]))
    (maker,) = [node for node in model.graph.node if "b" in node.output]
    maker.output[0] = "b0"
    steps = [helper.make_node("Identity", [f"b{number}"], [f"b{number + 1}"]) for number in range(20_000)]
    model.graph.node.extend([*steps, helper.make_node("Identity", ["b20000"], ["b"])])
    onnx.save(model, tmp_path / "model.onnx")
    start = time.monotonic()
    assert "operators behind" in str(facts_of(tmp_path / "model.onnx", "onnx").first)
    assert time.monotonic() - start < 5


def test_many_products_of_one_weight_are_bounded_work(tmp_path: Path) -> None:
    model = onnx.load(saved(tmp_path, WAYS["MatMul"][0], changes={"w": np.full((K, 1 << 20), 1, np.int8)}))
    again = [helper.make_node("MatMul", ["a", "b"], [f"y{number}"]) for number in range(3_000)]
    model.graph.node.extend(again)
    onnx.save(model, tmp_path / "model.onnx")
    start = time.monotonic()
    assert "would be computed" in str(facts_of(tmp_path / "model.onnx", "onnx").first)
    assert time.monotonic() - start < 30
