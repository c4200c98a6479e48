"""Reads the token table of a TorchScript file: the constant of the `embedding` that is given the ids."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bge_export.errors import ArtifactError
from bge_export.formats._torchscript_file import load_torchscript
from bge_export.token_tables import Lookup, as_rows
from bge_export.token_tables._flow import Operation, ways_of

if TYPE_CHECKING:
    import torch

LOOKUP = "aten::embedding"
IN_PLACE = ("_", "::append", "::insert", "::extend")
"""Ends of the names of operators that change what they are given."""

FRESH = frozenset(
    f"aten::{name}"
    for name in [
        "add",
        "addmm",
        "baddbmm",
        "bmm",
        "cumsum",
        "div",
        "gelu",
        "layer_norm",
        "linear",
        "matmul",
        "mean",
        "mul",
        "ne",
        "pow",
        "relu",
        "rsqrt",
        "rsub",
        "scaled_dot_product_attention",
        "sigmoid",
        "silu",
        "softmax",
        "sub",
        "tanh",
    ]
)
"""Operators whose result shares no memory with what they read; any other may hand rows on to be changed."""

OF_SHAPES = frozenset({"aten::size", "prim::device", "prim::dtype"})
"""Operators that say what a value is, and nothing of what it holds."""


def open_lookup(path: Path) -> Lookup:
    """Return the lookup of a file; see `token_tables`."""
    try:
        table = _table(load_torchscript(path, "cpu").inlined_graph)
    except Exception as error:  # torch raises many kinds
        first = str(error).strip().partition("\n")[0]
        raise ArtifactError(f"{path}: its lookup of token ids cannot be read: {first}") from error

    # Positions are not run: files of this format have float32 weights, whose states show any row that is wrong.
    return Lookup(lambda ids: as_rows([table[ids]], len(ids)), lambda _: iter(()))


def _table(graph: "torch.Graph") -> NDArray[np.float32]:
    """Return the table that the graph looks its first input up in.

    Raises:
        ValueError: the outputs depend on the ids in several ways, or the table is no constant.
    """
    _, ids, *others = (value.debugName() for value in graph.inputs())  # the module itself comes first
    live = {ids, *others}
    aliases: set[str] = set()
    operations: list[Operation] = []
    tables: dict[str, object] = {}

    for node in graph.nodes():
        sources = tuple(name for name in (value.debugName() for value in node.inputs()) if name in live)
        outputs = tuple(value.debugName() for value in node.outputs())
        if node.kind().endswith(IN_PLACE) and next(iter(node.inputs())).debugName() in aliases:
            raise ValueError(f"{node.kind()} changes rows in place")
        if not sources:
            continue

        live |= set(outputs)
        operations.append(Operation(_kind(node.kind()), sources, outputs))
        if node.kind() == LOOKUP or (aliases & set(sources) and node.kind() not in FRESH):
            aliases |= set(outputs)
        if node.kind() == LOOKUP:
            tables[outputs[0]] = next(iter(node.inputs())).toIValue()

    found = ways_of(operations, ids, [value.debugName() for value in graph.outputs()])
    known = [tables[name] for name in found.rows if tables.get(name) is not None]
    if not known:
        raise ValueError("its outputs do not depend on the ids by one lookup alone")
    return np.asarray(known[0].float().numpy())  # type: ignore[attr-defined]  # a tensor


def _kind(name: str) -> str:
    """Return the kind of an operation, as `Operation` has it."""
    if name == LOOKUP:
        return "looks"
    return "shapes" if name in OF_SHAPES else "other"
