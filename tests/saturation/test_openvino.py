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
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=PAIRS, first="w", first_broken=PAIRS)


def test_a_weight_of_seven_bits_passes(tmp_path: Path) -> None:
    facts = facts_of(ir(tmp_path, "MatMul", 64), "openvino")
    assert facts == PairFacts(weights=1, pairs=PAIRS, broken=0, first=None, first_broken=0)


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
    assert (facts.weights, facts.broken) == (1, PAIRS)


@pytest.mark.parametrize(
    ("bound", "broken"), [(None, 1), (0.64, 0), (0.66, 1), (1.27, 1)], ids=["free", "64", "66", "127"]
)
def test_signed_activations_on_the_right_are_bound_as_weights_are(
    bound: float | None, broken: int, tmp_path: Path
) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    right = onto(key if bound is None else ops.clamp(key, -bound, bound), -1.28, 1.27)
    left = onto(query, -1.28, 1.27)
    facts = facts_of(saved(tmp_path, ops.matmul(left, right, False, True), query, key), "openvino")
    assert (facts.weights, facts.pairs, facts.broken) == (1, 1, broken)


def test_activations_beside_floats_or_without_signs_are_not_bound(tmp_path: Path) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    for left, right in ((query, onto(key, -1.28, 1.27)), (onto(query, -1.28, 1.27), onto(key, 0, 2.55))):
        facts = facts_of(saved(tmp_path, ops.matmul(left, right, False, True), query, key), "openvino")
        assert (facts.weights, facts.broken) == (0, 0)


def test_signed_codes_that_were_sliced_are_bound_too(tmp_path: Path) -> None:
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    codes = ops.convert(onto(key, -1.28, 1.27, -128, 127), "i8")
    right = ops.multiply(ops.convert(ops.slice(codes, [0], [2], [1], [0]), "f32"), np.float32(0.01))
    product = ops.matmul(onto(query, -1.28, 1.27), right, False, True)
    facts = facts_of(saved(tmp_path, product, query, key), "openvino")
    assert (facts.weights, facts.broken) == (1, 1)


@pytest.mark.parametrize(
    ("filled", "broken"), [(0, 0), (64, 0), (-64, 0), (65, 1), (-65, 1), (None, 1)],
    ids=["0", "64", "-64", "65", "-65", "no constant"],
)  # fmt: skip
def test_signed_codes_that_were_padded_are_bound_with_what_they_were_padded_with(
    filled: int | None, broken: int, tmp_path: Path
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
    assert (facts.weights, facts.broken) == (1, broken)


def test_padded_numbers_and_codes_of_another_kind_are_not_taken_for_small(tmp_path: Path) -> None:
    """A Pad of -56 in int8 is one of 200 in uint8, and numbers may be rounded anew behind it."""
    query, key = ops.parameter([2, 8], np.float32), ops.parameter([3, 8], np.float32)
    small = ops.clamp(key, -0.64, 0.64)
    fill = np.float32(0)
    numbers = ops.pad(onto(small, -1.28, 1.27), [0, 0], [1, 0], "constant", ops.constant(fill))
    facts = facts_of(
        saved(tmp_path, ops.matmul(onto(query, -1.28, 1.27), numbers, False, True), query, key), "openvino"
    )
    assert (facts.weights, facts.broken) == (1, 1)
    x = ops.parameter([2, K], np.float32)
    codes = ops.convert(onto(ops.clamp(x, -0.56, 1.98), -0.56, 4.54, 0, 255), "i8")
    padded = ops.pad(codes, [0, 0], [1, 0], "constant", ops.constant(np.array(-56, np.int8)))
    product = ops.matmul(unrounded(ops.convert(padded, "u8")), weight(), False, False)
    assert facts_of(saved(tmp_path, product, x), "openvino").broken == PAIRS
