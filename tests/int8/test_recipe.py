"""Each step of the int8 recipe against a statement of what it should compute, on every architecture."""

import copy
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import openvino
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_samples import TEXTS, Sample, cosines, make_sample, run_graph

from bge_export.calibration.hessian import hessian
from bge_export.calibration.observing import CalibrationSet
from bge_export.contracts import TokenBatch
from bge_export.encoder.encoder import POINTS, Layer, Linear
from bge_export.encoder.folds import (
    fold_attention,
    scale_values,
    shift_attention,
    shift_feedforward,
    with_layer,
)
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import read_encoder
from bge_export.encoder.reorder import reorder_heads, reorder_hidden, reorder_inner
from bge_export.heads.dense import dense_head
from bge_export.precision.int8.plan.grid import grid_between
from bge_export.precision.int8.plan.input_scaling import InputPlan
from bge_export.precision.int8.plan.layers import LayerPlan, Settings, plan_layers
from bge_export.precision.int8.plan.scores import QUERY_MARGIN, plan_scores
from bge_export.precision.int8.plan.splitting import Copy, SplitPlan, plan_split, split
from bge_export.precision.int8.round import rounding
from bge_export.precision.int8.round.build import Builder
from bge_export.precision.int8.round.pairing import Reader, order_channels
from bge_export.precision.int8.round.precise_inputs import PRECISE_MARGIN, plan_precise
from bge_export.precision.int8.round.quantized import InputQuantization, QuantizedLinear, round_table
from bge_export.precision.int8.round.variant import Variant
from bge_export.precision.int8.search.running import open_graph
from bge_export.precision.int8.search.variants import fastest_variant, frontier, frontier_length, residuals
from bge_export.precision.int8.write.arrange import Arrangement, arrange
from bge_export.precision.int8.write.parts import Parts
from bge_export.saturation import facts_of, pair_facts, saturating_pairs
from bge_export.saturation.onnx import int8_weights

# ---------------------------------------------------------------------------------------- reading and exact steps


def test_the_encoder_read_computes_the_graph(sample: Sample) -> None:
    expected = run_graph(sample.model, sample.tokens) * sample.tokens.attention_mask[..., None]
    assert np.abs(sample.states(sample.encoder).numpy() - expected).max() < 2e-5


def test_a_graph_of_another_form_is_named(sample: Sample) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    for node in model.graph.node:
        if node.op_type == "Erf":
            node.op_type = "Tanh"
    with pytest.raises(UnknownGraph, match="activation"):
        read_encoder(model)


def test_exact_steps_leave_the_function_as_it_is(sample: Sample) -> None:
    expected = sample.states(sample.encoder)
    hidden = len(sample.encoder.embedding_norm.gamma)
    random = np.random.default_rng(0)
    encoder = sample.encoder
    for layer_index in range(len(encoder.layers)):
        encoder = shift_attention(encoder, layer_index, random.normal(size=hidden).astype(np.float32))
        layer = shift_feedforward(encoder.layers[layer_index], random.normal(size=hidden).astype(np.float32))
        layer = scale_values(fold_attention(layer), random.uniform(0.5, 2, hidden).astype(np.float32))
        layer = reorder_inner(layer, random.permutation(layer.up.weight.shape[1]))
        layer = reorder_heads(layer, within_heads(random, hidden, layer.heads))
        assert layer.key.bias is None
        assert layer.value.bias is None
        assert layer.score_scale == 1
        encoder = with_layer(encoder, layer_index, layer)
    order = random.permutation(hidden)
    encoder = reorder_hidden(encoder, order)
    moved = dataclasses.replace(sample, embedded=sample.embedded)
    assert (moved.states(encoder) - expected).abs().max() < 2e-4


def within_heads(random: np.random.Generator, hidden: int, heads: int) -> np.ndarray:
    size = hidden // heads
    return np.concatenate([head * size + random.permutation(size) for head in range(heads)])


# ----------------------------------------------------------------------------------------------- splitting


def test_a_split_relu_neuron_is_exact_and_stays_in_the_grid() -> None:
    layer = feedforward("relu")
    plan = SplitPlan(grid_between(0, 3), (Copy(1, 3.0, 1.0), Copy(1, 6.0, 2.0)), 0.0)
    changed = split(layer, plan)
    x = np.linspace(0, 7.4, 50, dtype=np.float32)[:, None]  # neuron 1 is x itself
    inner = np.maximum(x @ changed.up.weight + changed.up.bias, 0)
    clipped = np.minimum(inner, changed.clip)
    assert changed.clip == pytest.approx(3.0, abs=0.02)
    whole = np.maximum(x @ layer.up.weight + layer.up.bias, 0) @ layer.down.weight
    assert np.abs(clipped @ changed.down.weight - whole).max() < 0.05
    assert changed.up.weight.shape[1] % 16 == 0


def feedforward(activation: str) -> Layer:
    """A layer of hidden width 1 whose neuron 1 passes x on, and whose others do nothing."""
    one = np.ones((1, 1), np.float32)
    linear = Linear(one, None)
    up = Linear(np.array([[0, 1, 0, 0]], np.float32), np.zeros(4, np.float32))
    down = Linear(np.array([[0], [2], [0], [0]], np.float32), None)
    norm = None
    return Layer(linear, linear, linear, linear, norm, up, down, norm, 1, 1.0, activation)  # type: ignore[arg-type]


def test_an_outlier_neuron_is_found_and_boundaries_avoid_its_values(sample: Sample) -> None:
    layer = feedforward("gelu")
    inner = torch.zeros(400, 4)
    inner[:, 0] = torch.linspace(-2, 2, 400)
    inner[::10, 1] = 8.0  # an outlier: 0 or 8
    inner[:, 2] = torch.linspace(0, 1.5, 400)
    from bge_export.calibration.observing import Importance

    weights = Importance(torch.ones(400), torch.ones(1), torch.ones(1, 1))
    layer = dataclasses.replace(layer, down=Linear(np.ones((4, 1), np.float32), None))
    high = inner.amax(0).clamp(min=0)
    plan = plan_split(layer, inner, high, weights, worth=1e-6, texts=10)
    assert {copy.neuron for copy in plan.copies} == {1}
    assert plan.grid.greatest < 5
    assert all(abs(copy.start - 8) > 1.5 for copy in plan.copies[1:])
    whole = plan_split(layer, inner, high, weights, worth=1e3, texts=10)
    assert not whole.copies  # they are not worth the width they take
    assert whole.activation_error > plan.activation_error


# ----------------------------------------------------------------------------------------------- rounding


def test_rounding_keeps_the_saturation_constraint_and_beats_plain_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 64, generator=generator) @ torch.randn(64, 64, generator=generator)
    weight = torch.randn(64, 32, generator=generator).sign() * torch.rand(64, 32, generator=generator)
    gram = hessian(x, torch.full((600,), 1 / 600))
    rounded = rounding.round_weight(weight, gram)
    codes = rounded.integers.astype(int)
    first, second = codes[0::2], codes[1::2]
    assert not ((first * second > 0) & (abs(first) + abs(second) > 128)).any()
    assert saturating_pairs(rounded.integers) == 0
    plain = rounding.keep_pairs(torch.round(weight / (weight.abs().amax(0) / 127))) * weight.abs().amax(0) / 127

    def error(other: torch.Tensor) -> float:
        return float((x @ (other - weight)).square().mean())

    assert error(torch.from_numpy(rounded.weight)) < error(plain)


def test_where_the_rule_does_not_bind_rounding_is_closer() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(600, 64, generator=generator)
    weight = torch.randn(64, 32, generator=generator).sign() * (0.5 + torch.rand(64, 32, generator=generator))
    gram = hessian(x, torch.full((600,), 1 / 600))
    bound, free = (rounding.round_weight(weight, gram, paired=paired) for paired in (True, False))
    assert saturating_pairs(bound.integers) == 0
    assert saturating_pairs(free.integers) > 0
    missed = [float(np.square(one.weight - weight.numpy()).mean()) for one in (bound, free)]
    assert missed[1] < missed[0] / 4


def test_an_input_in_two_parts_is_scaled_so_that_the_rows_of_its_weights_are_even() -> None:
    rows = torch.tensor([1.0, 1.0, 1.0, 30.0])
    weight = rows[:, None] * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    ends = torch.full((4,), 5.0)
    plan = InputPlan(torch.zeros(4), torch.ones(4), -ends, ends, 1.25, 0.0, 0.0)
    found = plan_precise(plan, weight, torch.ones(4), torch.ones(64), paired=False)
    evened = (weight * found.scale[:, None]).square().mean(1).sqrt()
    assert evened.max() / evened.min() < 10  # from 30
    assert found.grid.levels == 127
    assert found.grid.least <= -5 * PRECISE_MARGIN / found.scale.min() + found.grid.scale
    assert plan_precise(plan, weight, torch.ones(4), torch.ones(64), paired=True).grid.levels == 255


def test_neighbours_are_chosen_so_that_large_weights_stand_apart() -> None:
    weight = torch.tensor([[1.0], [1.0], [0.1], [0.1]])
    found, (signs,) = order_channels([Reader(weight, torch.ones(4), torch.ones(1))])
    order = found.tolist()
    assert sorted(order) == [0, 1, 2, 3]
    assert signs.tolist() == [1, 1, 1, 1]
    assert {frozenset(order[:2]), frozenset(order[2:])}.isdisjoint({frozenset({0, 1})})


def test_of_two_large_neighbours_one_is_flipped_where_the_input_is_scaled() -> None:
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    _, (signs, kept) = order_channels(
        [Reader(weight, torch.ones(2), torch.ones(2), may_flip=may_flip) for may_flip in (True, False)]
    )
    assert signs.tolist() == [1, -1]
    assert kept.tolist() == [1, 1]
    mixed = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert order_channels([Reader(mixed, torch.ones(2), torch.ones(2), may_flip=True)])[1][0].tolist() == [1, 1]


def test_both_of_a_pair_give_way_by_half() -> None:
    fixed = rounding.keep_pairs(torch.tensor([[120.0, -100.0, 90.0], [100.0, -127.0, -100.0]]))
    assert fixed.tolist() == [[74.0, -51.0, 90.0], [54.0, -77.0, -100.0]]


def test_tables_are_rounded_row_by_row() -> None:
    table = np.array([[1.0, -2.0], [100.0, 50.0], [0.0, 0.0]], np.float32)
    rounded = round_table(table)
    assert np.abs(rounded.integers * rounded.scale - table).max() < 0.4
    assert np.abs(rounded.integers[0] * rounded.scale[0] - table[0]).max() < 0.008


# ----------------------------------------------------------------------------------------------- whole graphs


EVERYWHERE = frozenset((layer_index, name) for layer_index in range(2) for name in POINTS)


@pytest.mark.parametrize("arrangement", ["sequence-major", "batch-major"])
@pytest.mark.parametrize("precise", [False, True])
def test_arranged_graphs_are_close_to_float32(
    sample: Sample, builder: Builder, arrangement: Arrangement, precise: bool
) -> None:
    variant = Variant(EVERYWHERE, EVERYWHERE) if precise else Variant()
    model = arrange(builder.build(variant), arrangement)
    onnx.checker.check_model(model, full_check=True)
    expected = run_graph(sample.model, sample.tokens)[:, 0]
    close = cosines(run_graph(model, sample.tokens)[:, 0], expected)
    # Drawn weights of width 32 are harder than any trained checkpoint;
    # without residuals they are held to what catches a wrong graph.
    assert close.min() > (0.9999 if precise else 0.98)


@pytest.mark.parametrize("arrangement", ["sequence-major", "batch-major"])
def test_with_residuals_all_weights_have_8_bits_and_none_can_overflow(
    sample: Sample, builder: Builder, arrangement: Arrangement, tmp_path: Path
) -> None:
    onnx.save(arrange(builder.build(Variant(EVERYWHERE, EVERYWHERE)), arrangement), tmp_path / "model.onnx")
    weights = list(int8_weights(tmp_path / "model.onnx"))
    assert pair_facts(weights).saturating == 0
    # two inputs for each weight, and one of them for its residual; all but those of neurons are kept small
    assert [greatest for _, _, greatest in weights].count(127) == 2 * 5 * 3
    assert [greatest for _, _, greatest in weights].count(255) == 2 * 3
    assert sum(saturating_pairs(integers) for _, integers, _ in weights) > 0


@pytest.mark.parametrize("levels", [127, 255])
def test_a_residual_leaves_half_a_step_of_its_grid(levels: int) -> None:
    grid = grid_between(-3, 5, levels)
    prelude = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Identity(x) }'
    )
    parts = Parts(prelude, by_sequence=True)
    made = parts.parts(parts.graph.outputs[0], InputQuantization(None, grid, 2), "point")
    assert made.residual is not None
    parts.graph.outputs[:] = [made.whole, made.residual.rest]
    for value in parts.graph.outputs:
        value.dtype, value.shape = onnx_ir.DataType.FLOAT, onnx_ir.Shape(["N"])
    x = np.concatenate(
        [np.linspace(grid.least, grid.greatest, 4001, dtype=np.float32), np.array([-100, 7, 1e9], np.float32)]
    )
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(parts.model).SerializeToString())
    whole, rest = session.run(None, {"x": x})
    missed = np.abs(whole + rest - np.clip(x, grid.least, grid.greatest))
    assert missed[:-3].max() < 0.51 * grid.scale / (126 if levels == 127 else 255)
    if levels == 127:  # beyond the bounds it is the nearest of them
        np.testing.assert_allclose((whole + rest)[-3:], [grid.least, grid.greatest, grid.greatest], rtol=1e-5)
        assert (np.round(whole / grid.scale) + grid.zero).max() == 127


@pytest.mark.parametrize("arrangement", ["sequence-major", "batch-major"])
def test_the_first_token_alone_is_that_of_all(sample: Sample, builder: Builder, arrangement: Arrangement) -> None:
    whole = run_graph(arrange(builder.build(Variant()), arrangement), sample.tokens)
    first = run_graph(arrange(builder.build(Variant()), arrangement, cls_only=True), sample.tokens)
    assert first.shape == (whole.shape[0], 1, whole.shape[2])
    assert cosines(first[:, 0], whole[:, 0]).min() > 0.995  # its keys and values are not rounded to 8 bits


@pytest.mark.parametrize("arrangement", ["sequence-major", "batch-major"])
@pytest.mark.parametrize("cls_only", [False, True])
def test_both_arrangements_give_in_openvino_what_they_give_in_onnxruntime(
    sample: Sample, builder: Builder, arrangement: Arrangement, cls_only: bool
) -> None:
    encoder = builder.build(Variant())
    # Rounding queries and keys is left out: it moves drawn weights far, and not alike.
    layers = tuple(dataclasses.replace(layer, scores=None) for layer in encoder.layers)
    model = arrange(dataclasses.replace(encoder, layers=layers), arrangement, cls_only=cls_only)
    by_openvino, by_onnxruntime = open_graph(model, "batch-major"), open_graph(model, "sequence-major")
    for row in sample.rows:
        tokens = sample.pad([row])
        assert cosines(by_openvino(tokens)[0, 0], by_onnxruntime(tokens)[0, 0]) > 0.999, row


@pytest.mark.parametrize("arrangement", ["sequence-major", "batch-major"])
@pytest.mark.parametrize("cls_only", [False, True])
def test_residuals_of_first_tokens_move_their_rows_alone(
    sample: Sample, builder: Builder, arrangement: Arrangement, cls_only: bool
) -> None:
    last = frozenset({(1, "output")})
    encoder = builder.build(Variant(first=last, first_finer=last))
    layer = encoder.layers[1]
    assert (layer.output_quantization.parts, layer.output_quantization.rows) == (2, "first")

    def states(output_quantization: InputQuantization, output: QuantizedLinear) -> np.ndarray:
        changed = dataclasses.replace(layer, output_quantization=output_quantization, output=output)
        layers = (encoder.layers[0], changed)
        model = arrange(dataclasses.replace(encoder, layers=layers), arrangement, cls_only=cls_only)
        return run_graph(model, sample.tokens)

    first = states(layer.output_quantization, layer.output)
    every = states(dataclasses.replace(layer.output_quantization, rows="all"), layer.output)
    none = states(dataclasses.replace(layer.output_quantization, parts=1), dataclasses.replace(layer.output, rest=None))
    np.testing.assert_allclose(first[:, 0], every[:, 0], atol=1e-5)
    np.testing.assert_allclose(first[:, 1:], none[:, 1:], atol=1e-5)
    assert np.abs(first[:, 0] - none[:, 0]).max() > 1e-3


def where_first_tokens_matter(builder: Builder, *points: tuple[int, str]) -> Builder:
    plans = [
        dataclasses.replace(plan, first={name: 0.9 if (layer_index, name) in points else 0.4 for name in POINTS})
        for layer_index, plan in enumerate(builder.plans)
    ]
    chosen = copy.copy(builder)
    chosen.plans = plans
    return chosen


def test_the_fastest_variant_gives_residuals_to_first_tokens_that_matter(sample: Sample, builder: Builder) -> None:
    chosen = where_first_tokens_matter(builder, (1, "output"))
    variant = fastest_variant(chosen, "sequence-major", cls_only=False)
    assert variant.first == frozenset({(1, "output")})
    assert variant.first_finer == frozenset()  # its weights are more than 1.5 % of so small an encoder
    assert fastest_variant(chosen, "batch-major", cls_only=False) == Variant()
    assert fastest_variant(where_first_tokens_matter(builder), "sequence-major", cls_only=False) == Variant()


def test_of_the_first_token_alone_only_the_last_layer_has_residuals(sample: Sample, builder: Builder) -> None:
    last = where_first_tokens_matter(builder, (1, "output"))
    assert fastest_variant(last, "sequence-major", cls_only=True).first == frozenset({(1, "output")})
    before = where_first_tokens_matter(builder, (0, "output"))
    assert fastest_variant(before, "sequence-major", cls_only=False).first == frozenset({(0, "output")})
    assert fastest_variant(before, "sequence-major", cls_only=True) == Variant()


def test_residuals_come_where_they_pay_and_weights_after_their_input(builder: Builder) -> None:
    steps = residuals(builder)
    assert len(steps) == len(set(steps)) == 2 * len(EVERYWHERE)
    order = {step: number for number, step in enumerate(steps)}
    assert all(order["input", point] < order["weights", point] for point in EVERYWHERE)
    found = list(frontier(builder, "sequence-major", cls_only=False))
    assert found[0] == fastest_variant(builder, "sequence-major", cls_only=False)
    assert found[-1] == Variant(EVERYWHERE, EVERYWHERE)
    assert len(found) == frontier_length(builder)
    for variant, after in itertools.pairwise(found):
        assert variant.precise <= after.precise
        assert variant.finer <= after.finer
        assert not after.first & after.precise


def test_both_arrangements_hold_the_same_integers_and_give_the_same_vectors(sample: Sample, builder: Builder) -> None:
    encoder = builder.build(Variant())
    one, other = arrange(encoder, "sequence-major"), arrange(encoder, "batch-major")
    assert integers(one) == integers(other)
    first = run_graph(one, sample.tokens)[:, 0]
    # Drawn weights of width 32 move far by any rounding, here of queries and keys.
    assert cosines(run_graph(other, sample.tokens)[:, 0], first).min() > 0.99
    layers = tuple(dataclasses.replace(layer, scores=None) for layer in encoder.layers)
    unrounded = arrange(dataclasses.replace(encoder, layers=layers), "batch-major")
    assert integers(one) == integers(unrounded)
    close = cosines(run_graph(unrounded, sample.tokens)[:, 0], first)
    assert (close.mean() > 0.9999, close.min() > 0.9995) == (True, True)


def integers(model: onnx.ModelProto) -> set[bytes]:
    """Return the weights."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    return {tensor.raw_data for tensor in tensors if len(tensor.dims) == 2}


def test_balanced_and_centred_scores_give_the_same_probabilities_on_narrow_grids(
    sample: Sample, builder: Builder, plans: list[LayerPlan]
) -> None:
    random = np.random.default_rng(0)
    for layer, plan in zip(builder.build(Variant()).layers, plans, strict=True):
        scores = plan.scores
        x = random.normal(size=(20, len(scores.balance))).astype(np.float32)
        query = layer.query.times(scores.balance)
        key = layer.key.lowered(scores.middle).times(np.reciprocal(scores.balance))
        np.testing.assert_array_equal(query.weight.integers, layer.query.weight.integers)
        np.testing.assert_array_equal(key.weight.integers, layer.key.weight.integers)
        expected = probabilities(x, layer.query, layer.key, layer.heads)
        np.testing.assert_allclose(probabilities(x, query, key, layer.heads), expected, atol=2e-5)


def probabilities(x: np.ndarray, query: QuantizedLinear, key: QuantizedLinear, heads: int) -> np.ndarray:
    """Return how much each row of x looks at each, [heads, rows, rows]."""
    asking, asked = (
        (x @ part.weight.weight + (0 if part.bias is None else part.bias)).reshape(len(x), heads, -1).swapaxes(0, 1)
        for part in (query, key)
    )
    return np.asarray(torch.softmax(torch.from_numpy(asking @ asked.swapaxes(1, 2)), -1))


def test_by_batch_keys_are_bound_as_weights_are(sample: Sample, builder: Builder, tmp_path: Path) -> None:
    model = arrange(builder.build(Variant()), "batch-major")
    onnx.save(model, tmp_path / "model.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml", compress_to_fp16=False)
    facts = facts_of(tmp_path / "model.xml", "openvino")
    layers = len(sample.encoder.layers)
    assert (facts.weights, facts.saturating) == (layers * 6 + layers, 0)  # and its scores


def test_the_grid_of_scores_holds_what_was_seen_of_both() -> None:
    query = torch.tensor([-3.0, -1.0]), torch.tensor([2.0, 1.0])
    key = torch.tensor([10.0, -8.0]), torch.tensor([14.0, 8.0])
    plan = plan_scores(query, key, torch.tensor([5.0, 1.0]))
    np.testing.assert_allclose(plan.middle, [7.0, -1.0])  # 12 and 0, of keys that lack 5 and 1
    np.testing.assert_allclose(plan.balance, np.sqrt([2 / 3, 8 / 1]), rtol=1e-6)
    assert plan.query_step == pytest.approx(np.sqrt(8.0) * QUERY_MARGIN / 127)
    assert max(3 * plan.balance[0], 1 * plan.balance[1]) <= 127 * plan.query_step
    assert max(2 / plan.balance[0], 8 / plan.balance[1]) <= 64 * plan.key_step


@pytest.mark.parametrize("cls_only", [False, True])
def test_a_text_has_the_same_vector_alone_and_in_any_batch(sample: Sample, builder: Builder, *, cls_only: bool) -> None:
    model = arrange(builder.build(Variant()), "sequence-major", cls_only=cls_only)
    together = run_graph(model, sample.tokens)[:, 0]
    for number, row in enumerate(sample.rows):
        assert np.array_equal(run_graph(model, sample.pad([row]))[0, 0], together[number]), number


@pytest.mark.parametrize("arrangement", ["batch-major", "sequence-major"])
@pytest.mark.parametrize("variant", [Variant(EVERYWHERE), Variant()], ids=["residual", "none"])
def test_openvino_gives_a_text_one_vector_in_every_length(
    sample: Sample, builder: Builder, variant: Variant, arrangement: Arrangement
) -> None:
    # With a residual, a sum in another order is seen: the grid is 255 times finer.
    model = arrange(builder.build(variant), arrangement)
    read = openvino.Core().read_model(model.SerializeToString(), b"")
    config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(read, "CPU", config).create_infer_request()
    names = [value.name for value in model.graph.input]

    def states(rows: list[tuple[int, ...]], length: int) -> np.ndarray:
        return np.array(request.infer(sample.pad(rows, length).feed(names))[0])

    for row in sample.rows:
        alone = states([row], len(row))[0]
        for more in (1, 7, 16, 29):
            together = states([row, *sample.rows[:2]], max(len(row) + more, *map(len, sample.rows[:2])))
            assert np.array_equal(together[0, : len(row)], alone), (len(row), more)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, onnxruntime.InferenceSession, np.ndarray]:
    """A small BERT, its int8 graph opened, and the vector of each text alone."""
    sample = make_sample("bert", tmp_path_factory.mktemp("bert"))
    texts = CalibrationSet(sample.batches)
    layers = plan_layers(sample.encoder, dense_head(sample.checkpoint.spec), texts, Settings())
    model = arrange(Builder(sample.encoder, layers).build(Variant()), "sequence-major")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    alone = np.stack([first_tokens(session, sample.pad([row]))[0] for row in sample.rows])
    return sample, session, alone


def first_tokens(session: onnxruntime.InferenceSession, tokens: TokenBatch) -> np.ndarray:
    names = [value.name for value in session.get_inputs()]
    return np.asarray(session.run(["last_hidden_state"], tokens.feed(names))[0])[:, 0]


@given(chosen=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=7), padding=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_no_neighbour_place_or_padding_moves_a_vector(bert, chosen: list[int], padding: int) -> None:
    sample, session, alone = bert
    rows = [sample.rows[number] for number in chosen]
    longest = max(len(row) for row in rows)
    together = first_tokens(session, sample.pad(rows, longest + padding))
    assert np.array_equal(together, alone[chosen])
