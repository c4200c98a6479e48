"""Writes a graph node by node: operators, constants that are stored once, normalisations and activations."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.encoder.encoder import Activation, Norm


class GraphWriter:
    """Appends operators to a graph."""

    def __init__(self, prelude: onnx.ModelProto, *, by_sequence: bool) -> None:
        """Start with a graph whose outputs are read as rows of tokens (`by_sequence`) or as [B, S, width]."""
        self.by_sequence = by_sequence
        self.model = ir.from_proto(prelude)
        self.graph = self.model.graph
        for node in self.graph:
            for value in node.outputs:
                value.shape = None  # the axes of the embeddings may be transposed

        self.tape = ir.tape.Tape(self.graph)
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.prefix = ""
        self._shared: dict[str, ir.Value] = {}

    def op(self, kind: str, inputs: Sequence[ir.Value], name: str, **attributes: object) -> ir.Value:
        """Append a node, named within the layer, and return its output."""
        value = self.tape.op(kind, inputs, attributes or None, name=f"{self.prefix}{name}")  # type: ignore[arg-type]
        value.name = f"{self.prefix}{name}:0"
        return value

    def once(self, name: str, make: Callable[[], ir.Value]) -> ir.Value:
        """Return a value that the whole graph shares; it is appended at the first request."""
        if name not in self._shared:
            prefix, self.prefix = self.prefix, ""
            self._shared[name] = make()
            self.prefix = prefix
        return self._shared[name]

    def constant(self, array: NDArray[np.generic], name: str) -> ir.Value:
        """Return an initializer; equal arrays share one."""
        # A digest, because the bytes themselves would hold every weight a second time.
        key = (array.dtype.name, array.shape, hashlib.sha256(np.ascontiguousarray(array).data).digest())
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
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=norm.epsilon)

    def activation(self, x: ir.Value, kind: Activation) -> ir.Value:
        """Return the activation of x."""
        if kind == "relu":
            return self.op("Relu", [x], "activation")

        # GELU: x / 2 * (1 + erf(x / sqrt(2)))
        divided = self.op("Div", [x, self.floats(np.sqrt(2.0), "sqrt2")], "activation/divided")
        erf = self.op("Erf", [divided], "activation/erf")
        one = self.op("Add", [erf, self.floats(1.0, "one")], "activation/one")
        product = self.op("Mul", [x, one], "activation/product")
        return self.op("Mul", [product, self.floats(0.5, "half")], "activation")
