"""A quantized encoder as data: integers, scales and zero points, independent of the graph written from them."""

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
class InputQuantization:
    """A quantization point: a linear layer's input, divided by `scale` [K] unless it is None, then rounded to a grid.

    Two `parts` mean residual (high + low) quantization: the rounding error is rounded again, on a grid that is finer by
    the number of levels of the first, and goes through the same weights: 14 or 16 bits in all, for one more product. If
    `rows` is "first", only the first token of each text has a residual and meets that of the weights
    (`QuantizedLinear.rest`).
    """

    scale: Floats | None
    grid: Grid
    parts: Parts = 1
    rows: Rows = "all"


@dataclass(frozen=True)
class QuantizedLinear:
    """A rounded weight with its float32 bias [N] or None; `rest` is the residual of the weight, or None."""

    weight: Rounded
    bias: Floats | None
    rest: Rounded | None = None

    def lowered(self, offset: Floats) -> "QuantizedLinear":
        """Return the layer with `offset` [N] subtracted from its outputs."""
        return replace(self, bias=-offset if self.bias is None else self.bias - offset)

    def times(self, factor: Floats) -> "QuantizedLinear":
        """Return the layer with its outputs multiplied by `factor` [N], and the same integers."""
        rest = None if self.rest is None else self.rest.times(factor)
        return QuantizedLinear(self.weight.times(factor), None if self.bias is None else self.bias * factor, rest)


@dataclass(frozen=True)
class QuantizedLayer:
    """`encoder.Layer` with rounded weights and the grids of its quantization points.

    `peaks` says how scores are kept in the range of an exponential. `scores` says how a runtime that multiplies queries
    and keys as integers may round them; None if that is not accurate enough.
    """

    qkv: InputQuantization
    query: QuantizedLinear
    key: QuantizedLinear
    value: QuantizedLinear
    output_quantization: InputQuantization
    output: QuantizedLinear
    attention_norm: Norm
    up_quantization: InputQuantization
    up: QuantizedLinear
    down_quantization: InputQuantization
    down: QuantizedLinear
    feedforward_norm: Norm
    heads: int
    activation: Activation
    scores: ScorePlan | None
    peaks: PeakPlan


@dataclass(frozen=True)
class Table:
    """An embedding table, quantized row by row: `integers` [rows, H] int8, `scale` [rows, 1] float32."""

    integers: NDArray[np.int8]
    scale: Floats


@dataclass(frozen=True)
class QuantizedEncoder:
    """`encoder.Encoder` with rounded layers; the embedding tables are rounded when the graph is written."""

    prelude: onnx.ModelProto
    embedding_norm: Norm
    layers: tuple[QuantizedLayer, ...]
    tail: onnx.ModelProto | None
    hidden_order: NDArray[np.int64] | None = None


def round_table(table: Floats) -> Table:
    """Return a table [rows, H], rounded row by row to a symmetric grid with a qmax of 127."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12) / 127
    return Table(np.round(table / scale).astype(np.int8), scale.astype(np.float32))
