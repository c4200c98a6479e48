"""The token table of a file is read through its own lookup, and a spoilt row is found in every format."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bge_export.errors import ArtifactError
from bge_export.precision import Step, find_precision
from bge_export.token_tables import Lookup, open_lookup, row_errors
from bge_export.token_tables._flow import Operation, ways_of

ROWS, WIDTH = 300, 32
TABLE = np.random.default_rng(3).standard_normal((ROWS, WIDTH)).astype(np.float32)
INT8 = find_precision("int8").table
FP32 = find_precision("fp32").table


def file_with(folder: Path, nodes: Sequence[onnx.NodeProto], **constants: np.ndarray) -> Path:
    """Write a model that gives `states` from `input_ids`."""
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])
    states = helper.make_empty_tensor_value_info("states")
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "g", [ids], [states], tensors)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def looked_up(table: str, output: str) -> onnx.NodeProto:
    return helper.make_node("Gather", [table, "input_ids"], [output])


def errors_of(path: Path, step: Step = FP32) -> np.ndarray:
    found = row_errors(open_lookup(path, "onnx"), TABLE, step)
    assert found is not None
    return found


def test_a_plain_table_is_right(tmp_path: Path) -> None:
    assert errors_of(file_with(tmp_path, [looked_up("t", "states")], t=TABLE)).max() == 0


def test_columns_may_stand_in_another_order_and_the_table_may_have_a_scale(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(WIDTH)
    table = np.ascontiguousarray(TABLE[:, order] * np.float32(8))
    assert errors_of(file_with(tmp_path, [looked_up("t", "states")], t=table)).max() < 1


def test_columns_with_scales_of_their_own_hide_nothing(tmp_path: Path) -> None:
    table = TABLE * np.where(np.arange(WIDTH) == 3, 300, 1).astype(np.float32)
    assert errors_of(file_with(tmp_path, [looked_up("t", "states")], t=table), INT8).min() > 1


def int8_nodes() -> list[onnx.NodeProto]:
    return [
        looked_up("codes", "c"),
        looked_up("scales", "s"),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "s"], ["states"]),
    ]


def int8_table() -> tuple[np.ndarray, np.ndarray]:
    scales = np.abs(TABLE).max(axis=1, keepdims=True) / 127
    return np.round(TABLE / scales).astype(np.int8), scales.astype(np.float32)


def test_rounded_rows_are_right_within_their_step(tmp_path: Path) -> None:
    codes, scales = int8_table()
    found = errors_of(file_with(tmp_path, int8_nodes(), codes=codes, scales=scales), INT8)
    assert 0.3 < found.max() < 1


def zeroed(codes: np.ndarray, scales: np.ndarray, row: int) -> None:
    codes[row] = 0


def undefined(codes: np.ndarray, scales: np.ndarray, row: int) -> None:
    scales[row] = np.nan


def neighbours(codes: np.ndarray, scales: np.ndarray, row: int) -> None:
    codes[row], scales[row] = codes[row - 1], scales[row - 1]


def noisy(codes: np.ndarray, scales: np.ndarray, row: int) -> None:
    rows = codes[row] * scales[row]
    noise = np.random.default_rng(row).standard_normal(WIDTH)
    rows += 0.1 * np.linalg.norm(rows) * noise / np.linalg.norm(noise)
    scales[row] = np.abs(rows).max() / 127
    codes[row] = np.round(rows / scales[row])


@pytest.mark.parametrize("spoil", [zeroed, undefined, neighbours, noisy])
def test_one_spoilt_row_of_a_rounded_table_is_found(spoil: Callable[..., None], tmp_path: Path) -> None:
    for row in range(1, ROWS, 40):
        codes, scales = int8_table()
        spoil(codes, scales, row)
        found = errors_of(file_with(tmp_path, int8_nodes(), codes=codes, scales=scales), INT8)
        wrong = np.flatnonzero(~(found <= 1))
        assert wrong.tolist() == [row], spoil.__name__


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def told_apart(*marks: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return a right lookup to which another table adds something for some ids."""
    return [
        looked_up("t", "right"),
        *marks,
        node("Gather", "delta mark", "added"),
        node("Add", "right added", "states"),
    ]


DECOYS = {
    "another table by the ids themselves": told_apart(node("Mul", "input_ids one", "mark")),
    "another table by one id": told_apart(
        node("Equal", "input_ids seven", "is"), node("Cast", "is", "mark", to=TensorProto.INT64)
    ),
    "another table by the length": [
        looked_up("t", "right"),
        looked_up("bad", "wrong"),
        node("Shape", "input_ids", "shape"),
        node("Gather", "shape one", "tokens"),
        node("Equal", "tokens one", "alone"),
        node("Where", "alone right wrong", "states"),
    ],
    "another table by how many ids are one": [
        looked_up("t", "right"),
        looked_up("bad", "wrong"),
        node("Sub", "input_ids seven", "off"),
        node("NonZero", "off", "places"),
        node("Size", "places", "count"),
        node("Equal", "count one", "all"),
        node("Where", "all right wrong", "states"),
    ],
    "another table by the row that was looked up": [
        looked_up("t", "right"),
        node("MatMul", "right transposed", "like"),
        node("ArgMax", "like", "again", axis=-1, keepdims=0),
        node("Gather", "bad again", "states"),
    ],
    "a right table that nothing reads": [looked_up("t", "unread"), looked_up("bad", "states")],
    "a right table times zero": [
        looked_up("t", "right"),
        helper.make_node("Mul", ["right", "zero"], ["nothing"]),
        looked_up("bad", "wrong"),
        helper.make_node("Add", ["nothing", "wrong"], ["states"]),
    ],
    "another row for one id": [
        looked_up("t", "right"),
        looked_up("bad", "wrong"),
        helper.make_node("Equal", ["input_ids", "seven"], ["is"]),
        helper.make_node("Unsqueeze", ["is", "last"], ["there"]),
        helper.make_node("Where", ["there", "wrong", "right"], ["states"]),
    ],
}


@pytest.mark.parametrize("decoy", DECOYS)
def test_no_right_table_can_stand_beside_the_one_that_is_used(decoy: str, tmp_path: Path) -> None:
    bad = TABLE.copy()
    bad[7] = 0
    delta = np.zeros_like(TABLE)
    delta[7] = -TABLE[7]
    delta[1] = -TABLE[7] if "by one id" in decoy else 0
    constants = {"zero": np.float32(0), "seven": np.int64(7), "one": np.int64(1), "last": np.array([-1], np.int64)}
    constants |= {"delta": delta, "transposed": np.ascontiguousarray(TABLE.T)}
    path = file_with(tmp_path, DECOYS[decoy], t=TABLE, bad=bad, **constants)
    try:
        found = row_errors(open_lookup(path, "onnx"), TABLE, FP32)
    except ArtifactError:
        return
    assert found is None or not found[7] <= 1


def test_positions_that_count_ids_are_no_second_way() -> None:
    operations = [
        Operation("other", ("ids",), ("not-padding",)),
        Operation("other", ("not-padding",), ("positions",)),
        Operation("looks", ("ids",), ("rows",)),
        Operation("looks", ("positions",), ("position-rows",)),
        Operation("other", ("rows", "position-rows"), ("sum",)),
    ]
    assert ways_of(operations, "ids", ["sum"]).rows == ("rows",)
    assert ways_of(operations, "ids", ["sum"]).positions == ("position-rows",)
    smuggled = [*operations[:-1], Operation("other", ("rows", "positions"), ("sum",))]
    assert ways_of(smuggled, "ids", ["sum"]).rows == ()


def test_a_file_without_a_lookup_says_so(tmp_path: Path) -> None:
    path = file_with(tmp_path, [helper.make_node("Cast", ["input_ids"], ["states"], to=TensorProto.FLOAT)])
    with pytest.raises(ArtifactError, match="one lookup alone"):
        open_lookup(path, "onnx")


def test_another_table_is_not_taken_for_the_checkpoints(tmp_path: Path) -> None:
    other = np.random.default_rng(8).standard_normal((ROWS, WIDTH)).astype(np.float32)
    lookup: Lookup = open_lookup(file_with(tmp_path, [looked_up("t", "states")], t=other), "onnx")
    found = row_errors(lookup, TABLE, FP32)
    assert found is None or found.min() > 1
