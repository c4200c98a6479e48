"""A quantized encoder as data: one set of integers, scales and zero points, whatever graph is written around them."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from bge_export.encoder.encoder import Activation, Floats, Norm
from bge_export.precision.int8.plan.grid import Grid
from bge_export.precision.int8.plan.peaks import PeakPlan
from bge_export.precision.int8.plan.scores import ScorePlan
from bge_export.precision.int8.round.rounding import Rounded

Parts = Literal[1, 2]
Rows = Literal["all", "first"]


@dataclass(frozen=True)
class Site:
    """A linear layer's input: divided by `scale` [K] (None: by nothing), then rounded to a grid.

    With two `parts` the rounding error is rounded once more, on a grid as many times finer as the first has levels, and
    goes through the same weights: 14 or 16 bits in all, for one more product. Where `rows` is "first", only the first
    token of each text gets the second part, and its weights theirs (`QuantizedLinear.rest`).
    """

    scale: Floats | None
    grid: Grid
    parts: Parts = 1
    rows: Rows = "all"


@dataclass(frozen=True)
class QuantizedLinear:
    """A rounded weight with its float32 bias [N] or None; `rest` holds what the first integers missed, or None."""

    weight: Rounded
    bias: Floats | None
    rest: Rounded | None = None

    def lowered(self, offset: Floats) -> "QuantizedLinear":
        """Return the layer whose outputs are less by `offset` [N]."""
        return replace(self, bias=-offset if self.bias is None else self.bias - offset)

    def times(self, factor: Floats) -> "QuantizedLinear":
        """Return the layer whose outputs are multiplied by `factor` [N], with the same integers."""
        rest = None if self.rest is None else self.rest.times(factor)
        return QuantizedLinear(self.weight.times(factor), None if self.bias is None else self.bias * factor, rest)


@dataclass(frozen=True)
class QuantizedLayer:
    """`encoder.Layer` with rounded weights and the grids of its sites.

    `peaks` says how its scores come within reach of an exponential, `scores` how a runtime that multiplies queries and
    keys as integers may round them; None where that is not exact enough.
    """

    qkv: Site
    query: QuantizedLinear
    key: QuantizedLinear
    value: QuantizedLinear
    output_site: Site
    output: QuantizedLinear
    attention_norm: Norm
    up_site: Site
    up: QuantizedLinear
    down_site: Site
    down: QuantizedLinear
    feedforward_norm: Norm
    heads: int
    activation: Activation
    scores: ScorePlan | None
    peaks: PeakPlan


@dataclass(frozen=True)
class Table:
    """An embedding table by rows: `integers` [rows, H] int8, `scale` [rows, 1] float32."""

    integers: NDArray[np.int8]
    scale: Floats


@dataclass(frozen=True)
class QuantizedEncoder:
    """`encoder.Encoder` with rounded layers; the embedding tables are rounded where the graph is written."""

    prelude: onnx.ModelProto
    embedding_norm: Norm
    layers: tuple[QuantizedLayer, ...]
    tail: onnx.ModelProto | None
    hidden_order: NDArray[np.int64] | None = None


def round_table(table: Floats) -> Table:
    """Return a table [rows, H] rounded row by row, symmetrically to 127."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    return Table(np.round(table / scale).astype(np.int8), scale.astype(np.float32))
