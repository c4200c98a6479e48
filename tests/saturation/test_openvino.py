import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import openvino.opset13 as ops
import pytest
from saturation.models import BOUNDED, PAIRS, UNBOUNDED, WAYS, K, N, bounded, written

from bge_export.errors import ArtifactError
from bge_export.saturation import PairFacts, facts_of

READ = [way for way in WAYS if way not in ("QLinearMatMul", "DynamicQuantizeMatMul", "MatMulInteger")]
"""What OpenVINO reads as int8 of its own: it has no such operators, and keeps those of integers out of its IR."""


Read = Callable[[Path], openvino.Model]

AS_IT_IS: Read = openvino.Core().read_model


def ir(folder: Path, way: str, fill: int) -> Path:
    nodes, turned = WAYS[way]
    return converted(folder, written(folder, nodes, turned=turned, fill=fill))


def converted(folder: Path, file: Path, read: Read = AS_IT_IS) -> Path:
    openvino.save_model(read(file), folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


# Converting rewrites what reading leaves: bounds become one operator, and codes and what they stand for too.
either = pytest.mark.parametrize("read", [AS_IT_IS, openvino.convert_model], ids=["read", "converted"])


@pytest.mark.parametrize("way", READ)
def test_a_weight_is_found_however_it_is_multiplied(way: str, tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, way, 127), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, saturating=PAIRS, first="w", first_saturating=PAIRS)


def test_a_weight_of_seven_bits_passes(tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, "MatMul", 64), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, saturating=0, first=None, first_saturating=0)


@either
@pytest.mark.parametrize("way", BOUNDED)
def test_inputs_that_the_model_keeps_small_leave_all_bits_to_the_weight(way: str, read: Read, tmp_path: Path) -> None:
    facts = facts_of(converted(tmp_path, bounded(tmp_path, BOUNDED[way]), read), "openvino")
    assert facts == PairFacts(1, PAIRS, 0, None, 0)


@either
@pytest.mark.parametrize("way", UNBOUNDED)
def test_bounds_that_keep_nothing_small(way: str, read: Read, tmp_path: Path) -> None:
    if (way, read) == ("bounds that are no number", openvino.convert_model):
        with pytest.raises(RuntimeError, match="less or equal"):
            read(bounded(tmp_path, UNBOUNDED[way]))
        return
    facts = facts_of(converted(tmp_path, bounded(tmp_path, UNBOUNDED[way]), read), "openvino")
    assert facts == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


def test_a_weight_is_found_however_the_file_is_written(tmp_path: Path) -> None:
    """XML knows two kinds of quotes, white space around a sign, and characters by their number."""
    path = ir(tmp_path, "MatMul", 127)
    text = path.read_text("utf-8")
    assert '"i8"' in text
    for old, new in (('"', "'"), ('="', ' = "'), ('"i8"', '"&#105;8"'), ('"FakeQuantize"', '"Fake&#81;uantize"')):
        path.write_text(text.replace(old, new), "utf-8")
        assert facts_of(path, "openvino").saturating == PAIRS


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net>")
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        facts_of(tmp_path / "model.xml", "openvino")


# ------------------------------------------------------------------------------- graphs that no ONNX file says


Node = openvino.Node


def saved(folder: Path, result: Node, *parameters: Node) -> Path:
    openvino.save_model(openvino.Model([result], list(parameters)), folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def onto(x: Node, least: float, greatest: float, *ends: float) -> Node:
    """Return x on 256 levels; `ends` are those of the result, where they are others."""
    return ops.fake_quantize(x, *(np.float32(end) for end in (least, greatest, *(ends or (least, greatest)))), 256)


def weight() -> Node:
    integers = ops.constant(np.full((K, N), 127, np.int8), name="w")
    return ops.multiply(ops.convert(integers, "f32"), np.float32(0.01))


def unrounded(codes: Node) -> Node:
    return ops.multiply(ops.subtract(ops.convert(codes, "f32"), np.float32(28)), np.float32(0.02))


def real_numbers_as_codes(x: Node) -> Node:
    kept = ops.clamp(x, -0.56, 1.98)
    back = ops.multiply(ops.subtract(onto(kept, -0.56, 4.54), np.float32(28)), np.float32(0.02))
    return onto(ops.subtract(kept, back), -64 * 0.02 / 126, 191 * 0.02 / 126)


def large_numbers_made_codes(x: Node) -> Node:
    return unrounded(ops.convert(onto(ops.clamp(x, 100.0, 227.0), 100, 355), "u8"))


def padding_behind_a_convert(x: Node) -> Node:
    codes = ops.convert(onto(ops.clamp(x, -0.56, 1.98), -0.56, 4.54, 0, 255), "u8")
    fill = ops.convert(ops.constant(np.array(-56, np.int8)), "u8")
    return unrounded(ops.pad(codes, [0, 0], [1, 0], "constant", fill))


def missed_of_turned_codes(x: Node) -> Node:
    kept = ops.clamp(x, -0.56, 1.98)
    turned = ops.reshape(ops.convert(onto(kept, -0.56, 4.54, 0, 255), "u8"), [K, 2], special_zero=False)
    back = ops.reshape(unrounded(turned), [2, K], special_zero=False)
    return onto(
        ops.subtract(kept, ops.transpose(ops.reshape(back, [K, 2], False), [1, 0])), -64 * 0.02 / 126, 191 * 0.02 / 126
    )


def rows_of_codes(x: Node) -> Node:
    codes = ops.convert(onto(x, -0.56, 4.54, 0, 255), "u8")
    return unrounded(ops.slice(codes, [0], [1], [1], [0]))


@pytest.mark.parametrize(
    "inputs",
    [
        real_numbers_as_codes,
        large_numbers_made_codes,
        padding_behind_a_convert,
        missed_of_turned_codes,
        rows_of_codes,
    ],
)
def test_codes_that_only_look_small_or_hidden(inputs: Callable[[Node], Node], tmp_path: Path) -> None:
    x = ops.parameter([2, K], np.float32)
    facts = facts_of(saved(tmp_path, ops.matmul(inputs(x), weight(), False, False), x), "openvino")
    assert (facts.weights, facts.saturating) == (1, PAIRS)


@pytest.mark.parametrize(
    ("bound", "saturating"), [(None, 1), (0.64, 0), (0.66, 1), (1.27, 1)], ids=["free", "64", "66", "127"]
)
def test_signed_activations_on_the_right_are_bound_as_weights_are(
    bound: float | None, saturating: int, tmp_path: Path
) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    right = onto(key if bound is None else ops.clamp(key, -bound, bound), -1.28, 1.27)
    left = onto(query, -1.28, 1.27)
    facts = facts_of(saved(tmp_path, ops.matmul(left, right, False, True), query, key), "openvino")
    assert (facts.weights, facts.pairs, facts.saturating) == (1, 1, saturating)


def test_activations_beside_floats_or_without_signs_are_not_bound(tmp_path: Path) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    for left, right in ((query, onto(key, -1.28, 1.27)), (onto(query, -1.28, 1.27), onto(key, 0, 2.55))):
        facts = facts_of(saved(tmp_path, ops.matmul(left, right, False, True), query, key), "openvino")
        assert (facts.weights, facts.saturating) == (0, 0)


def test_signed_codes_that_were_sliced_are_bound_too(tmp_path: Path) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    codes = ops.convert(onto(key, -1.28, 1.27, -128, 127), "i8")
    right = ops.multiply(ops.convert(ops.slice(codes, [0], [2], [1], [0]), "f32"), np.float32(0.01))
    product = ops.matmul(onto(query, -1.28, 1.27), right, False, True)
    facts = facts_of(saved(tmp_path, product, query, key), "openvino")
    assert (facts.weights, facts.saturating) == (1, 1)


@pytest.mark.parametrize(
    ("filled", "saturating"), [(0, 0), (64, 0), (-64, 0), (65, 1), (-65, 1), (None, 1)],
    ids=["0", "64", "-64", "65", "-65", "no constant"],
)  # fmt: skip
def test_signed_codes_that_were_padded_are_bound_with_what_they_were_padded_with(
    filled: int | None, saturating: int, tmp_path: Path
) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    codes = ops.convert(onto(ops.clamp(key, -0.64, 0.64), -1.28, 1.27, -128, 127), "i8")
    unknown = ops.parameter([], np.int8)
    fill = unknown if filled is None else ops.constant(np.array(filled, np.int8))
    padded = ops.pad(codes, [0, 0], [1, 0], "constant", fill)
    product = ops.matmul(
        onto(query, -1.28, 1.27), ops.multiply(ops.convert(padded, "f32"), np.float32(0.01)), False, True
    )
    parameters = [query, key, *([unknown] if filled is None else [])]
    facts = facts_of(saved(tmp_path, product, *parameters), "openvino")
    assert (facts.weights, facts.saturating) == (1, saturating)


def test_padded_numbers_and_codes_of_another_kind_are_not_taken_for_small(tmp_path: Path) -> None:
    """A Pad of -56 in int8 is one of 200 in uint8, and numbers may be rounded anew behind it."""
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    small = ops.clamp(key, -0.64, 0.64)
    fill = np.float32(0)
    numbers = ops.pad(onto(small, -1.28, 1.27), [0, 0], [1, 0], "constant", ops.constant(fill))
    facts = facts_of(
        saved(tmp_path, ops.matmul(onto(query, -1.28, 1.27), numbers, False, True), query, key), "openvino"
    )
    assert (facts.weights, facts.saturating) == (1, 1)
    x = ops.parameter([2, K], np.float32)
    codes = ops.convert(onto(ops.clamp(x, -0.56, 1.98), -0.56, 4.54, 0, 255), "i8")
    padded = ops.pad(codes, [0, 0], [1, 0], "constant", ops.constant(np.array(-56, np.int8)))
    product = ops.matmul(unrounded(ops.convert(padded, "u8")), weight(), False, False)
    assert facts_of(saved(tmp_path, product, x), "openvino").saturating == PAIRS


# ------------------------------------------------------------------------------- ways from a weight to a product


def codes_of_x(x: Node) -> Node:
    return unrounded(ops.convert(onto(x, -0.56, 4.54, 0, 255), "u8"))


def integers(name: str, *shape: int) -> Node:
    return ops.constant(np.full(shape, 127, np.int8), name=name)


def joined() -> Node:
    return ops.convert(ops.concat([integers("w", 2, N), integers("v", K - 2, N)], 0), "f32")


def joined_as_floats() -> Node:
    parts = [ops.convert(part, "f32") for part in (integers("w", 2, N), integers("v", K - 2, N))]
    return ops.multiply(ops.concat(parts, 0), np.float32(0.01))


def split_off() -> Node:
    return ops.variadic_split(ops.convert(integers("w", K, 2 * N), "f32"), 1, [N, N]).output(0)


def spread() -> Node:
    return ops.convert(ops.broadcast(integers("w", K, 1), [K, N]), "f32")


def factor_first() -> Node:
    return ops.multiply(ops.constant(np.full(N, 0.01, np.float32)), ops.convert(integers("w", K, N), "f32"))


def largest_of_one() -> Node:
    """A maximum over an axis of length one, which is the weight itself once OpenVINO has computed its constants."""
    return ops.convert(ops.reduce_max(integers("w", 1, K, N), 0, False), "f32")


def sum_of_one(_: Node) -> Node:
    return ops.convert(ops.reduce_sum(integers("w", 1, K, N), 0, False), "f32")


@pytest.mark.parametrize("made", [joined, joined_as_floats, split_off, spread, factor_first, largest_of_one])
def test_a_weight_is_counted_whatever_stands_in_between(made: Callable[[], Node], tmp_path: Path) -> None:
    x = ops.parameter([2, K], np.float32)
    facts = facts_of(saved(tmp_path, ops.matmul(codes_of_x(x), made(), False, False), x), "openvino")
    assert facts == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)


@pytest.mark.parametrize(
    "between",
    [
        lambda a: ops.relu(a),
        lambda a: ops.clamp(a, -1, 1),
        lambda a: ops.multiply(np.float32(2), a),
        lambda a: ops.add(a, np.float32(2)),
        lambda a: ops.squeeze(ops.max_pool(ops.unsqueeze(a, 0), [1], [1], [0], [0], [1]).output(0), 0),
        lambda a: ops.concat([ops.constant(np.zeros((1, K), np.float32)), a], 0),
        *(
            lambda a, reduce=reduce: reduce(ops.unsqueeze(a, 0), 0, False)
            for reduce in (ops.reduce_max, ops.reduce_min, ops.reduce_mean, ops.reduce_sum)
        ),
    ],
    ids=["Relu", "Clamp", "Multiply", "Add", "MaxPool", "Concat", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum"],
)
def test_activations_are_followed_through_other_operators(between: Callable[[Node], Node], tmp_path: Path) -> None:
    x = ops.parameter([2, K], np.float32)
    product = ops.matmul(between(codes_of_x(x)), weight(), False, False)
    facts = facts_of(saved(tmp_path, product, x), "openvino")
    assert (facts.weights, facts.saturating) == (1, PAIRS)


def picked_at_run_time(x: Node) -> Node:
    rows = ops.convert(ops.reduce_max(x, 0, False), "i64")
    return ops.convert(ops.gather(integers("w", 9, N), rows, 0), "f32")


def of_two(_: Node) -> Node:
    return ops.add(ops.convert(integers("w", K, N), "f32"), ops.convert(integers("v", K, N), "f32"))


def pooled(_: Node) -> Node:
    made = ops.unsqueeze(ops.convert(integers("w", K, N), "f32"), [0, 1])
    return ops.squeeze(ops.avg_pool(made, [1, 1], [0, 0], [0, 0], [1, 1], False), [0, 1])


def largest_as_floats(_: Node) -> Node:
    return ops.reduce_max(ops.convert(integers("w", 1, K, N), "f32"), 0, False)


def root_of_square(_: Node) -> Node:
    made = ops.convert(integers("w", K, N), "f32")
    return ops.sqrt(ops.power(made, np.float32(2)))


def product_of_constants(_: Node) -> Node:
    one = ops.convert(ops.constant(np.eye(K, dtype=np.float32)), "f32")
    return ops.matmul(one, ops.convert(integers("w", K, N), "f32"), False, False)


def rounded_by_openvino(_: Node) -> Node:
    return onto(ops.constant(np.full((K, N), 1.27, np.float32), name="w"), -1.28, 1.27)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (picked_at_run_time, "depends on"),
        (of_two, "computes with two"),
        (pooled, "AvgPool"),
        (largest_as_floats, "ReduceMax"),
        (sum_of_one, "ReduceSum"),
        (root_of_square, "Sqrt"),
        (product_of_constants, "MatMul"),
        (rounded_by_openvino, "FakeQuantize"),
    ],
)
def test_a_weight_that_cannot_be_followed_counts_as_saturating(
    made: Callable[[Node], Node], reason: str, tmp_path: Path
) -> None:
    x = ops.parameter([2, K], np.float32)
    facts = facts_of(saved(tmp_path, ops.matmul(codes_of_x(x), made(x), False, False), x), "openvino")
    assert facts.saturating == facts.weights
    assert reason in str(facts.first)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_convolution_in_each_order_of_its_inputs(grouped: bool, tmp_path: Path) -> None:
    """Two channels and 3 * 3 places: neighbours are places if channels come first, else channels."""
    kernel = np.zeros((3, 2, 3, 3), np.int8)
    kernel[:, :, 0, 0] = 127
    x = ops.parameter([1, 6 if grouped else 2, 4, 4], np.float32)
    made = ops.convert(ops.constant(kernel[:, None] if grouped else kernel, name="f"), "f32")
    multiply = ops.group_convolution if grouped else ops.convolution
    product = multiply(codes_of_x(x), made, [1, 1], [0, 0], [0, 0], [1, 1])
    facts = facts_of(saved(tmp_path, product, x), "openvino")
    assert facts == PairFacts(1, 2 * 9 * 3, 3, "f", 3)


def test_a_recurrent_cell_and_a_body_of_a_loop(tmp_path: Path) -> None:
    x, h, c = (ops.parameter([2, 3], np.float32) for _ in range(3))
    matrix = ops.multiply(ops.convert(integers("w", 12, 3), "f32"), np.float32(0.01))
    cell = ops.lstm_cell(codes_of_x(x), h, c, matrix, ops.constant(np.ones((12, 3), np.float32)),
                         ops.constant(np.zeros(12, np.float32)), 3)  # fmt: skip
    facts = facts_of(saved(tmp_path, cell.output(0), x, h, c), "openvino")
    assert "LSTMCell" in str(facts.first)

    a, b = ops.parameter([2, K], np.float32), ops.parameter([2, K], np.float32)
    then, other = (openvino.Model([ops.result(ops.matmul(codes_of_x(p), weight(), False, False))], [p]) for p in (a, b))
    y = ops.parameter([2, K], np.float32)
    branch = ops.if_op(ops.constant(True))
    branch.set_then_body(then)
    branch.set_else_body(other)
    branch.set_input(y.output(0), a, b)
    result = branch.set_output(then.get_results()[0], other.get_results()[0])
    facts = facts_of(saved(tmp_path, result, y), "openvino")
    assert "body of If" in str(facts.first)


CIRCLES = {
    "of one": {1: 1},
    "of two": {1: 2, 2: 1},
    "of many": {1: 900, **{number: number - 1 for number in range(2, 901)}},
}


@pytest.mark.parametrize("circle", CIRCLES)
def test_a_model_with_a_circle_is_refused(circle: str, tmp_path: Path) -> None:
    """Layer n adds the input and the result of another layer; `CIRCLES` says of which."""
    port = '<port id="{}" precision="FP32"><dim>2</dim><dim>5</dim></port>'
    layers = [
        '<layer id="0" name="x" type="Parameter" version="opset1"><data shape="2,5" element_type="f32"/>'
        f"<output>{port.format(0)}</output></layer>"
    ]
    edges = []
    sources = CIRCLES[circle]
    for number, source in sources.items():
        layers.append(
            f'<layer id="{number}" name="a{number}" type="Add" version="opset1"><data auto_broadcast="numpy"/>'
            f"<input>{port.format(0)}{port.format(1)}</input><output>{port.format(2)}</output></layer>"
        )
        edges.append(f'<edge from-layer="0" from-port="0" to-layer="{number}" to-port="0"/>')
        edges.append(f'<edge from-layer="{source}" from-port="2" to-layer="{number}" to-port="1"/>')
    end = len(sources) + 1
    layers.append(f'<layer id="{end}" name="y" type="Result" version="opset1"><input>{port.format(0)}</input></layer>')
    edges.append(f'<edge from-layer="1" from-port="2" to-layer="{end}" to-port="0"/>')
    text = f'<net name="g" version="11"><layers>{"".join(layers)}</layers><edges>{"".join(edges)}</edges></net>'
    (tmp_path / "model.xml").write_text(text)
    start = time.monotonic()
    with pytest.raises(ArtifactError, match="weights cannot be read"):
        facts_of(tmp_path / "model.xml", "openvino")
    assert time.monotonic() - start < 5


def test_constants_that_share_their_parts_are_computed_once(tmp_path: Path) -> None:
    x = ops.parameter([2, K], np.float32)
    made = integers("w", K, N)
    for _ in range(40):  # each asks twice for the one before it
        made = ops.select(ops.constant(np.array(True)), made, made)
    product = ops.matmul(codes_of_x(x), ops.convert(made, "f32"), False, False)
    start = time.monotonic()
    assert facts_of(saved(tmp_path, product, x), "openvino") == PairFacts(1, PAIRS, PAIRS, "w", PAIRS)
    assert time.monotonic() - start < 5


def test_a_huge_shape_and_a_chain_without_end_are_a_reason(tmp_path: Path) -> None:
    x = ops.parameter([2, K], np.float32)
    wide = ops.convert(ops.broadcast(integers("w", K, 1), [K, 1 << 40]), "f32")
    facts = facts_of(saved(tmp_path, ops.matmul(codes_of_x(x), wide, False, False), x), "openvino")
    assert "bytes" in str(facts.first)

    long = ops.convert(integers("w", K, N), "f32")
    for _ in range(5_000):
        long = ops.multiply(long, np.float32(1))
    start = time.monotonic()
    facts = facts_of(saved(tmp_path, ops.matmul(codes_of_x(x), long, False, False), x), "openvino")
    assert "operators behind" in str(facts.first)
    assert time.monotonic() - start < 10
