"""Runs the lookup of token ids in an OpenVINO model: the nodes between the ids and the rows of the table."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.files.openvino_reader import load_model
from bge_export.token_tables import Floats, Lookup, as_rows
from bge_export.token_tables._flow import Operation, ways_of

IDS = "input_ids"
FLOATS = frozenset({"f32", "f16", "bf16"})
DECODING = frozenset(
    {"Add", "Concat", "Divide", "Floor", "Mod", "Multiply", "Slice", "Split", "StridedSlice", "Subtract"}
)
"""Operators that unpack and scale rows. Whatever else reads a row is no longer the lookup."""

COUNTING = frozenset({"NonMaxSuppression", "NonZero", "OneHot", "Range", "Unique"})
"""Operators whose results have a shape that depends on values."""

PASSING = frozenset({"Convert", "Pad", "Reshape", "Unsqueeze", "Squeeze", "Transpose"})


def open_lookup(path: Path) -> Lookup:
    """Return the lookup of a file; see `token_tables`."""
    try:
        found, count, parameter = _values(load_model(path))
        parameter.set_partial_shape(openvino.PartialShape([-1, -1]))  # whatever shape the file has baked in
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(openvino.Model(found, [parameter], "lookup"), "CPU", config)
    except Exception as error:  # OpenVINO raises many kinds
        last = str(error).strip().rpartition("\n")[2]
        raise ArtifactError(f"{path}: its lookup of token ids cannot be run: {last}") from error

    def run(ids: NDArray[np.int64], *, positions: bool) -> Iterator[Floats]:
        # One token a text: positions then stay within any table of them.
        values = list(compiled([ids[:, None]]).values())
        return as_rows(values[count:] if positions else values[:count], len(ids))

    return Lookup(partial(run, positions=False), partial(run, positions=True))


def _values(model: openvino.Model) -> tuple[list[openvino.Output], int, openvino.Node]:
    """Return the float values that may be the rows, then those that counts of ids look up; the number of the former.

    The last item is the parameter of the ids.

    Raises:
        ValueError: the outputs depend on the ids in several ways.
    """
    operations: list[Operation] = []
    constants: set[str] = set()
    values: dict[str, openvino.Output] = {}
    results: list[str] = []
    parameter = None

    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        sources = [_name(one.get_source_output()) for one in node.inputs()]
        outputs = tuple(map(_name, node.outputs()))
        values |= zip(outputs, node.outputs(), strict=True)

        if kind == "Parameter" and IDS in node.output(0).get_names():
            parameter = node
        elif kind == "Constant" or (sources and set(sources) <= constants):
            constants |= set(outputs)
        elif kind == "Result":
            results += sources
        elif kind != "Parameter":
            inputs = tuple(name for name in sources if name not in constants)
            operations.append(Operation(_kind(kind, first_is_constant=sources[0] in constants), inputs, outputs))

    ids = "" if parameter is None else _name(parameter.output(0))
    ways = ways_of(operations, ids, results)
    found = [values[name] for name in ways.rows if values[name].get_element_type().get_type_name() in FLOATS]
    if parameter is None or not found:
        raise ValueError("its outputs do not depend on the ids by one lookup alone")
    return [*found, *(values[name] for name in ways.positions)], len(found), parameter


def _name(output: openvino.Output) -> str:
    """Return a name that OpenVINO gives; a file may give the friendly one to several nodes."""
    return f"{output.get_node().get_name()}:{output.get_index()}"


def _kind(name: str, *, first_is_constant: bool) -> str:
    """Return the kind of an operation, as `Operation` has it."""
    if name in PASSING:
        return "passes"
    if name == "Gather" and first_is_constant:
        return "looks"
    if name in DECODING:
        return "decodes"
    if name in COUNTING:
        return "counts"
    return "shapes" if name == "ShapeOf" else "other"
