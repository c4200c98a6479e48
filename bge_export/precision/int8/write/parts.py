"""Writes the building blocks of both arrangements: normalisations, rounded inputs, linear layers, activations."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.encoder.encoder import Norm
from bge_export.encoder.frame import Frame
from bge_export.precision.int8.plan.grid import HALF, LEVELS, Grid
from bge_export.precision.int8.round.quantized import InputQuantization, QuantizedLinear
from bge_export.precision.int8.round.rounding import Rounded

REST_STEPS = {LEVELS: 255, HALF: 126}
"""qmax of a grid -> steps of the residual per step of the high part. Its range covers half a step, either way."""


@dataclass(frozen=True)
class Residual:
    """The residual of an input: the rounding error of its high part.

    Attributes:
        same: rows of the high part that have a residual.
        rest: their residual.
        grid: grid of `rest`.
        narrow: whether only first tokens have a residual.
    """

    same: ir.Value
    rest: ir.Value
    grid: Grid
    narrow: bool


@dataclass(frozen=True)
class RoundedInput:
    """A linear layer's input, rounded to a grid, and its residual or None."""

    whole: ir.Value
    grid: Grid
    residual: Residual | None = None


class Parts(Frame):
    """Appends the parts of layers to a graph."""

    def __init__(self, prelude: onnx.ModelProto, *, by_sequence: bool) -> None:
        """Start with a graph whose outputs are read as rows of tokens (`by_sequence`) or as [B, S, width]."""
        super().__init__(prelude, by_sequence=by_sequence)
        self._normalized: dict[ir.Value, tuple[ir.Value, Norm]] = {}

    def norm(self, x: ir.Value, norm: Norm, name: str) -> ir.Value:
        """Return the layer normalisation of x, and note what it normalises."""
        result = super().norm(x, norm, name)
        self._normalized[result] = (x, norm)
        return result

    def rounded(self, x: ir.Value, grid: Grid, name: str) -> tuple[ir.Value, ir.Value]:
        """Return x rounded to a grid: the quantized values, and the dequantized ones."""
        codes = self.op("QuantizeLinear", [x, *self._scale_and_zero(grid, name)], f"{name}/codes")
        return codes, self.unrounded(codes, grid, name)

    def rounded_evenly(
        self, x: ir.Value, step: float, name: str, between: Callable[[ir.Value], ir.Value] = lambda codes: codes
    ) -> ir.Value:
        """Return x quantized to a symmetric int8 grid and dequantized; OpenVINO multiplies two of them as integers.

        `between` is applied to the quantized values.
        """
        scale_and_zero = [self.floats(step, f"{name}.step"), self.constant(np.array(0, np.int8), f"{name}.middle")]
        codes = between(self.op("QuantizeLinear", [x, *scale_and_zero], f"{name}/codes"))
        return self.op("DequantizeLinear", [codes, *scale_and_zero], f"{name}/rounded")

    def unrounded(self, codes: ir.Value, grid: Grid, name: str) -> ir.Value:
        """Return the dequantized values."""
        return self.op("DequantizeLinear", [codes, *self._scale_and_zero(grid, name)], name)

    def _scale_and_zero(self, grid: Grid, name: str) -> list[ir.Value]:
        return [self.floats(grid.scale, f"{name}.scale"), self.constant(np.array(grid.zero, np.uint8), f"{name}.zero")]

    def scaled(self, x: ir.Value, quantization: InputQuantization, name: str) -> ir.Value:
        """Return a linear layer's input, divided by the scale of its quantization point."""
        if quantization.scale is None:
            return x

        # A batch-major graph normalises a second time with the scale, in place of a product (`arrange.py`).
        inverse = 1 / quantization.scale.astype(np.float64)
        if self.by_sequence or x not in self._normalized:
            return self.op("Mul", [x, self.floats(inverse.astype(np.float32), f"{name}.inverse")], f"{name}/scaled")
        return self._scaled_norm(*self._normalized[x], inverse, name)

    def first_scaled(self, x: ir.Value, quantization: InputQuantization, name: str) -> ir.Value:
        """Return the first tokens' rows of a normalised x, divided by the scale of a quantization point.

        They are normalised again: OpenVINO quantizes wrongly after a Mul between Slice and QuantizeLinear (0016).
        """
        source, norm = self._normalized[x]
        inverse = np.ones(len(norm.gamma)) if quantization.scale is None else 1 / quantization.scale.astype(np.float64)
        return self._scaled_norm(self.first(source, f"{name}/first_sums"), norm, inverse, f"{name}/first")

    def _scaled_norm(self, source: ir.Value, norm: Norm, inverse: NDArray[np.float64], name: str) -> ir.Value:
        gamma, beta = ((vector * inverse).astype(np.float32) for vector in (norm.gamma, norm.beta))
        return self.norm(source, Norm(gamma, beta, norm.epsilon), f"{name}/scaled")

    def parts(
        self, x: ir.Value, quantization: InputQuantization, name: str, *, only_first: bool = False
    ) -> RoundedInput:
        """Return a scaled input, rounded; with `only_first`, its rows are already those of first tokens alone."""
        coarse = quantization.grid
        if coarse.levels < LEVELS:
            # uint8 would allow values above qmax. The saturation constraint is read from these bounds (`saturation`).
            least, greatest = (
                self.floats(coarse.least, f"{name}.least"),
                self.floats(coarse.greatest, f"{name}.most"),
            )
            x = self.op("Clip", [x, least, greatest], f"{name}/within")

        codes, whole = self.rounded(x, coarse, name)
        if quantization.parts == 1:
            return RoundedInput(whole, coarse)

        narrow = quantization.rows == "first" and not only_first
        same = whole
        if narrow:
            rows = self.first(codes, f"{name}/first_codes")
            x, same = self.first(x, f"{name}/first_input"), self.unrounded(rows, coarse, f"{name}/first")

        # Quantize the rounding error on the finer grid, whose zero point is in its middle.
        steps = REST_STEPS[coarse.levels]
        grid = Grid(
            float(np.float32(coarse.scale / steps)),
            (coarse.levels + 1) // 2,
            coarse.levels,
        )
        _, rest = self.rounded(self.op("Sub", [x, same], f"{name}/missed"), grid, f"{name}.rest")
        return RoundedInput(whole, coarse, Residual(same, rest, grid, narrow=narrow))

    def first(self, x: ir.Value, name: str) -> ir.Value:
        """Return the rows of each text's first token; if sequence-major, they are the first B."""
        if not self.by_sequence:
            return self.op("Slice", [x, self.integers([0]), self.integers([1]), self.integers([1])], name)
        return self.op("Slice", [x, self.integers([0]), self.sizes[0], self.integers([0])], name)

    def weight(self, rounded: Rounded, name: str) -> ir.Value:
        """Return the dequantized weight, [K, N]."""
        zeros = self.constant(np.zeros(len(rounded.scale), np.int8), f"{name}.zero")
        inputs = [self.constant(rounded.integers, f"{name}.weight"), self.floats(rounded.scale, f"{name}.scale"), zeros]
        return self.op("DequantizeLinear", inputs, f"{name}/weight", axis=1)

    def linear(self, x: RoundedInput, layer: QuantizedLinear, name: str) -> ir.Value:
        """Return x @ weight + bias for x with or without a residual."""
        weight = self.weight(layer.weight, name)
        result = self.product(x.whole, x.grid, weight, layer.weight.scale, layer.bias, name)
        if x.residual is None:
            return result

        more = self.product(x.residual.rest, x.residual.grid, weight, layer.weight.scale, None, f"{name}.rest")
        if layer.rest is not None:
            finer = self.weight(layer.rest, f"{name}.finer")
            finest = self.product(x.residual.same, x.grid, finer, layer.rest.scale, None, f"{name}.finer")
            more = self.op("Add", [more, finest], f"{name}/more")

        if x.residual.narrow:
            return self.added_to_first(result, more, name)
        return self.op("Add", [result, more], f"{name}/whole")

    def added_to_first(self, x: ir.Value, more: ir.Value, name: str) -> ir.Value:
        """Return x with `more` added to the rows of first tokens."""
        if not self.by_sequence:
            rows = self.op("Add", [self.first(x, f"{name}/first_part"), more], f"{name}/first")
            bounds = [self.integers([1]), self.integers([2**62]), self.integers([1])]
            return self.op("Concat", [rows, self.op("Slice", [x, *bounds], f"{name}/others")], f"{name}/whole", axis=1)

        # ONNX Runtime adds in place; a Concat would copy all rows.
        return self.op(
            "ScatterND", [x, self.once("first/rows", self.first_rows), more], f"{name}/whole", reduction="add"
        )

    def first_rows(self) -> ir.Value:
        """Return the indices of first tokens' rows in a sequence-major graph, [B, 1] int64."""
        zero, one = (self.constant(np.array(number, np.int64), f"number.{number}") for number in (0, 1))
        count = self.op("Squeeze", [self.sizes[0]], "sizes/texts")
        rows = self.op("Range", [zero, count, one], "first/range")
        return self.op("Unsqueeze", [rows, self.integers([1])], "first/rows")

    def product(
        self,
        x: ir.Value,
        grid: Grid,
        weight: ir.Value,
        scale: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        name: str,
    ) -> ir.Value:
        """Return x @ weight + bias for a single part."""
        if not self.by_sequence:
            result = self.op("MatMul", [x, weight], f"{name}/product")
            return result if bias is None else self.op("Add", [result, self.floats(bias, f"{name}.bias")], name)

        if bias is None:
            return self.op("Gemm", [x, weight], name)

        # The 32-bit bias of a quantized Gemm has the scale of the products: input scale times weight scale.
        steps = (np.float32(grid.scale) * scale).astype(np.float32)
        codes = np.round(bias.astype(np.float64) / steps).clip(-(2**31), 2**31 - 1).astype(np.int32)
        zero = self.constant(np.zeros(len(codes), np.int32), f"{name}.bias_zero")
        inputs = [self.constant(codes, f"{name}.bias"), self.floats(steps, f"{name}.bias_scale"), zero]
        return self.op("Gemm", [x, weight, self.op("DequantizeLinear", inputs, f"{name}/bias", axis=0)], name)
