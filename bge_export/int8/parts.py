"""The parts that both arrangements are made of: normalisations, rounded inputs, linear layers, activations."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.int8.encoder import Activation, Norm
from bge_export.int8.grid import Grid
from bge_export.int8.quantized import QuantizedLinear, Site
from bge_export.int8.rounding import Rounded

REST_ZERO = 128
REST_FINER = 255


class Parts:
    """Appends parts of layers to a graph."""

    def __init__(self, prelude: onnx.ModelProto, *, by_sequence: bool) -> None:
        """Begin with a graph whose outputs are read on, by rows of tokens (`by_sequence`) or as [B, S, width]."""
        self.by_sequence = by_sequence
        self.model = ir.from_proto(prelude)
        self.graph = self.model.graph
        for node in self.graph:
            for value in node.outputs:
                value.shape = None  # the embeddings' axes may be turned
        self.tape = ir.tape.Tape(self.graph)
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.prefix = ""
        self._normalized: dict[ir.Value, tuple[ir.Value, Norm]] = {}

    def op(self, kind: str, inputs: Sequence[ir.Value], name: str, **attributes: object) -> ir.Value:
        """Append a node, named within the layer; return its output."""
        value = self.tape.op(kind, inputs, attributes or None, name=f"{self.prefix}{name}")  # type: ignore[arg-type]
        value.name = f"{self.prefix}{name}:0"
        return value

    def constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        """Return an initializer; equal ones are one."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            full = f"{self.prefix}{name}"
            self.constants[key] = self.tape.initializer(ir.tensor(array, name=full), full)
        return self.constants[key]

    def integers(self, numbers: Sequence[int]) -> ir.Value:
        """Return an int64 constant [n]."""
        return self.constant(np.array(numbers, np.int64), "shape." + ".".join(str(number) for number in numbers))

    def floats(self, array: NDArray[np.float32] | float, name: str) -> ir.Value:
        """Return a float32 constant."""
        return self.constant(np.asarray(array, np.float32), name)

    def norm(self, x: ir.Value, norm: Norm, name: str) -> ir.Value:
        """Return the layer normalisation of x."""
        inputs = [x, self.floats(norm.gamma, f"{name}.gamma"), self.floats(norm.beta, f"{name}.beta")]
        result = self.op("LayerNormalization", inputs, name, axis=-1, epsilon=norm.epsilon)
        self._normalized[result] = (x, norm)
        return result

    def rounded(self, x: ir.Value, grid: Grid, name: str) -> ir.Value:
        """Return x rounded to a grid and back."""
        ends = [self.floats(grid.scale, f"{name}.scale"), self.constant(np.array(grid.zero, np.uint8), f"{name}.zero")]
        codes = self.op("QuantizeLinear", [x, *ends], f"{name}/codes")
        return self.op("DequantizeLinear", [codes, *ends], name)

    def site(self, x: ir.Value, site: Site, name: str) -> list[tuple[ir.Value, Grid]]:
        """Return a linear layer's input in its parts, each rounded, with its grid."""
        return self.parts(self.scaled(x, site, name), site, name)

    def scaled(self, x: ir.Value, site: Site, name: str) -> ir.Value:
        """Return a linear layer's input on the scale that it is rounded on."""
        if site.scale is None:
            return x
        inverse = 1 / site.scale.astype(np.float64)
        if self.by_sequence or x not in self._normalized:
            return self.op("Mul", [x, self.floats(inverse.astype(np.float32), f"{name}.inverse")], f"{name}/scaled")
        source, norm = self._normalized[x]
        gamma, beta = ((vector * inverse).astype(np.float32) for vector in (norm.gamma, norm.beta))
        return self.norm(source, Norm(gamma, beta, norm.epsilon), f"{name}/scaled")

    def parts(self, x: ir.Value, site: Site, name: str) -> list[tuple[ir.Value, Grid]]:
        """Return a scaled input in its parts."""
        first = self.rounded(x, site.grid, name)
        if site.parts == 1:
            return [(first, site.grid)]
        rest = Grid(float(np.float32(site.grid.scale / REST_FINER)), REST_ZERO)
        missed = self.op("Sub", [x, first], f"{name}/missed")
        return [(first, site.grid), (self.rounded(missed, rest, f"{name}.rest"), rest)]

    def weight(self, rounded: Rounded, name: str) -> ir.Value:
        """Return the weight that the integers stand for, [K, N]."""
        zeros = self.constant(np.zeros(len(rounded.scale), np.int8), f"{name}.zero")
        inputs = [self.constant(rounded.integers, f"{name}.weight"), self.floats(rounded.scale, f"{name}.scale"), zeros]
        return self.op("DequantizeLinear", inputs, f"{name}/weight", axis=1)

    def linear(self, parts: list[tuple[ir.Value, Grid]], layer: QuantizedLinear, name: str) -> ir.Value:
        """Return x @ weight + bias for x in one part or two."""
        weight = self.weight(layer.weight, name)
        result = self.product(parts[0], weight, layer.weight.scale, layer.bias, name)
        for place, part in enumerate(parts[1:]):
            more = self.product(part, weight, layer.weight.scale, None, f"{name}.rest{place}")
            result = self.op("Add", [result, more], f"{name}/with_rest{place}")
        if layer.rest is not None:
            rest = self.weight(layer.rest, f"{name}.finer")
            more = self.product(parts[0], rest, layer.rest.scale, None, f"{name}.finer")
            result = self.op("Add", [result, more], f"{name}/with_finer")
        return result

    def product(
        self, part: tuple[ir.Value, Grid], weight: ir.Value, scale: NDArray[np.float32],
        bias: NDArray[np.float32] | None, name: str,
    ) -> ir.Value:  # fmt: skip
        """Return x @ weight + bias of one part."""
        x, grid = part
        if not self.by_sequence:
            result = self.op("MatMul", [x, weight], f"{name}/product")
            return result if bias is None else self.op("Add", [result, self.floats(bias, f"{name}.bias")], name)
        if bias is None:
            return self.op("Gemm", [x, weight], name)
        # The 32-bit bias of a quantized Gemm: on the grid of the products, input scale times weight scale.
        steps = (np.float32(grid.scale) * scale).astype(np.float32)
        codes = np.round(bias.astype(np.float64) / steps).clip(-(2**31), 2**31 - 1).astype(np.int32)
        zero = self.constant(np.zeros(len(codes), np.int32), f"{name}.bias_zero")
        inputs = [self.constant(codes, f"{name}.bias"), self.floats(steps, f"{name}.bias_scale"), zero]
        return self.op("Gemm", [x, weight, self.op("DequantizeLinear", inputs, f"{name}/bias", axis=0)], name)

    def activation(self, x: ir.Value, kind: Activation) -> ir.Value:
        """Return the activation of x."""
        if kind == "relu":
            return self.op("Relu", [x], "activation")
        divided = self.op("Div", [x, self.floats(np.sqrt(2.0), "sqrt2")], "activation/divided")
        erf = self.op("Erf", [divided], "activation/erf")
        one = self.op("Add", [erf, self.floats(1.0, "one")], "activation/one")
        product = self.op("Mul", [x, one], "activation/product")
        return self.op("Mul", [product, self.floats(0.5, "half")], "activation")
