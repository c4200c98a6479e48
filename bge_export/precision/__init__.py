"""The precisions of models, one module each, found by its name: `PRECISION` describes it, `convert` makes its graph.

The modules import nothing heavy, because the command line lists every precision in its help: what converts graphs lies
in `graphs/` and in `int8/`, and is imported when a graph is converted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from bge_export.plugins import find, names

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from bge_export.contracts import Checkpoint

Convert: TypeAlias = "Callable[[onnx.ModelProto, Checkpoint], onnx.ModelProto]"
"""Converts a graph, which it may modify; the checkpoint provides the tokenizer and the pooling to calibrate with."""

HELPERS = frozenset({"graphs", "int8_options"})
"""Modules of the room that are not precisions."""

FEWEST_FLOAT_BITS = 16

BLOCK = 64
"""Values of a row that share a scale in 4-bit tables."""

SMALLEST_STEP = 2.0**-25
"""Half a step of float16's smallest values, below which it does not get finer."""


@dataclass(frozen=True)
class Holds:
    """What a file of a precision must hold, derived from what the exporters write; the gate refuses any other file.

    The shares have room for small checkpoints, whose biases and normalisations weigh more, and for the parts of a graph
    that stay float32 on purpose (docs/decisions/0006). A file of another precision is far from them.

    Attributes:
        holder: the element type, or the operator with its bits, that holds the weights.
        share: the least share of the weights that it holds. A weight that is read by index, such as a table of
            positions, counts only if `tables` is true.
        tables: see `share`.
        operators: format -> an operator without which the file would not be of this precision.
        rest: the type of other floats (scales, biases), with the least share of them that has it.
    """

    holder: str
    share: float
    tables: bool = False
    operators: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, float] | None = None


@dataclass(frozen=True)
class Step:
    """How a precision stores a token table, which says how far a row may be from the checkpoint's.

    Attributes:
        bits: of an integer with its sign, or of a float's fraction with its leading one.
        group: what one scale is for: "value" for floats, else "row", "table", or "block" for `BLOCK` values of a row.
    """

    bits: int
    group: Literal["value", "row", "table", "block"]

    def largest_error(self, rows: "NDArray[np.floating]", greatest: float) -> "NDArray[np.float64]":
        """Return the L2 norm of the error of each row [N, D] if every value is half a step off, [N] float64.

        Args:
            rows: rows of the table.
            greatest: the greatest absolute value of the whole table.
        """
        import numpy as np

        wide = np.abs(rows.astype(np.float64))
        if self.group == "value":
            return np.asarray(np.linalg.norm(wide * 2.0**-self.bits + SMALLEST_STEP, axis=1))

        if self.group == "block":
            pad = -wide.shape[1] % BLOCK
            blocks = np.pad(wide, ((0, 0), (0, pad))).reshape(len(wide), -1, BLOCK)
            ranges = np.repeat(blocks.max(axis=2), BLOCK, axis=1)[:, : wide.shape[1]]
        else:
            ranges = np.broadcast_to(wide.max(axis=1, keepdims=True) if self.group == "row" else greatest, wide.shape)

        half = 0.5 / (2 ** (self.bits - 1) - 1)
        return np.asarray(np.linalg.norm(ranges * half, axis=1))


@dataclass(frozen=True)
class Precision:
    """How a model stores its weights, and every name that this has outside of bge-export.

    Attributes:
        name: the name in targets and on the command line, such as the `q4` of `onnx-q4`; its module has underscores in
            place of hyphens.
        bits: the bits of a weight.
        of: the precision whose graph is converted to it; None for the graph as traced, which fp32 arranges.
        files: format -> the model file, below the folder. Consumers of that format look for this name.
        client_dtype: its `dtype` in Transformers.js from version 3 on; None if clients have no name for it.
        lacked_by: runtimes that lack an operator of its ONNX graph.
        help: what it is, in a few words.
        holds: what its files must hold.
        table: how it stores the token table.
    """

    name: str
    bits: int
    of: str | None
    help: str
    holds: Holds
    table: Step
    files: Mapping[str, str] = field(default_factory=dict)
    client_dtype: str | None = None
    lacked_by: tuple[str, ...] = ()

    @property
    def rounded(self) -> bool:
        """Return whether weights are rounded to integers, so that an embedding may lose accuracy by design."""
        return self.bits < FEWEST_FLOAT_BITS


@cache
def precisions(format_name: str | None = None) -> tuple[Precision, ...]:
    """Return all precisions, or those with a file in a format; wide weights first, then by name."""
    modules = [name for name in names(__name__) if name not in HELPERS]
    found: list[Precision] = [find(__name__, name, "PRECISION") for name in modules]

    ordered = sorted(found, key=lambda one: (-one.bits, one.name))
    return tuple(one for one in ordered if format_name is None or format_name in one.files)


def precision_names(format_name: str | None = None) -> tuple[str, ...]:
    """Return the names of `precisions`."""
    return tuple(one.name for one in precisions(format_name))


def find_precision(name: str) -> Precision:
    """Return a precision.

    Raises:
        UsageError: there is no such precision.
    """
    found: Precision = find(__name__, _module(name), "PRECISION")
    return found


def find_conversion(name: str) -> Convert:
    """Return the function that converts a graph of `Precision.of` to this precision.

    Raises:
        UsageError: there is no such precision.
    """
    convert: Convert = find(__name__, _module(name), "convert")
    return convert


def model_file(format_name: str, precision: str) -> str:
    """Return the name of the model file of a target, below the folder."""
    return find_precision(precision).files[format_name]


@cache
def model_files() -> Mapping[str, str]:
    """Return target -> its model file, for the formats that precisions name files of."""
    return {f"{format_name}-{one.name}": file for one in precisions() for format_name, file in one.files.items()}


def _module(name: str) -> str:
    return name.replace("-", "_")
