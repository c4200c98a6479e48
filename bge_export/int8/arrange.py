"""Writes a quantized encoder as a graph: plain QDQ, opset 17, in the arrangement that a runtime runs fastest.

    SEQUENCE_MAJOR   rows of tokens [S*B, width], `Gemm` with a 32-bit bias: ONNX Runtime fuses each linear layer with
                     its bias and both attention products with their transpositions (Node, wasm, Python)
    BATCH_MAJOR      [B, S, width], `MatMul` and `Add`: OpenVINO fuses attention, and rounding into the layer before

Both hold the same integers, scales and zero points. What was measured, operator by operator: docs/decisions/0016.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.int8.encoder import Activation, Norm
from bge_export.int8.grid import Grid
from bge_export.int8.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Site
from bge_export.int8.rounding import Rounded
from bge_export.int8.tables import lookups, round_tables

Arrangement = Literal["sequence-major", "batch-major"]

REST_ZERO = 128
REST_FINER = 255


def arrange(encoder: QuantizedEncoder, arrangement: Arrangement, *, cls_only: bool = False) -> onnx.ModelProto:
    """Return the graph.

    Args:
        encoder: the quantized encoder.
        arrangement: which order of axes the layers work in.
        cls_only: whether only the first token's state is returned, [B, 1, H], and the last layer computes no other.
    """
    writer = _Writer(encoder, by_sequence=arrangement == "sequence-major")
    return writer.write(cls_only=cls_only)


class _Writer:
    """Appends an encoder's layers to its prelude."""

    def __init__(self, encoder: QuantizedEncoder, *, by_sequence: bool) -> None:
        self.encoder = encoder
        self.by_sequence = by_sequence
        self.model = ir.from_proto(encoder.prelude)
        self.graph = self.model.graph
        for node in self.graph:
            for value in node.outputs:
                value.shape = None  # the embeddings' axes may be turned
        self.tape = ir.tape.Tape(self.graph)
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self.prefix = ""
        self._head_shape: ir.Value | None = None
        self._texts: ir.Value | None = None

    def write(self, *, cls_only: bool) -> onnx.ModelProto:
        embedded, *biases = list(self.graph.outputs)
        self.graph.outputs.clear()
        hidden = len(self.encoder.embedding_norm.gamma)
        if self.by_sequence:
            self._sequence_first(embedded)
        embedded = round_tables(self.graph).get(embedded, embedded)
        self.sizes = self._sizes()
        bias = self._score_bias(biases)
        if self.by_sequence:
            embedded = self.op("Reshape", [embedded, self.integers([-1, hidden])], "embeddings/rows")
        state = self.norm(embedded, self.encoder.embedding_norm, "embeddings/norm")
        for place, layer in enumerate(self.encoder.layers):
            self.prefix = f"layer.{place}/"
            last = cls_only and place == len(self.encoder.layers) - 1
            state = self.first_only_layer(layer, state, bias) if last else self.layer(layer, state, bias)
        self.prefix = ""
        return self._finish(state, hidden, cls_only=cls_only)

    # ------------------------------------------------------------------------------------------------ building

    def op(self, kind: str, inputs: Sequence[ir.Value], name: str, **attributes: object) -> ir.Value:
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
        return self.constant(np.array(numbers, np.int64), "shape." + ".".join(str(number) for number in numbers))

    def floats(self, array: NDArray[np.float32] | float, name: str) -> ir.Value:
        return self.constant(np.asarray(array, np.float32), name)

    # ------------------------------------------------------------------------------------------------ parts

    def norm(self, x: ir.Value, norm: Norm, name: str) -> ir.Value:
        inputs = [x, self.floats(norm.gamma, f"{name}.gamma"), self.floats(norm.beta, f"{name}.beta")]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=norm.epsilon)

    def rounded(self, x: ir.Value, grid: Grid, name: str) -> ir.Value:
        """Return x rounded to a grid and back."""
        ends = [self.floats(grid.scale, f"{name}.scale"), self.constant(np.array(grid.zero, np.uint8), f"{name}.zero")]
        codes = self.op("QuantizeLinear", [x, *ends], f"{name}/codes")
        return self.op("DequantizeLinear", [codes, *ends], name)

    def site(self, x: ir.Value, site: Site, name: str) -> list[tuple[ir.Value, Grid]]:
        """Return a linear layer's input in its parts, each rounded, with its grid."""
        if site.scale is not None:
            inverse = (1 / site.scale.astype(np.float64)).astype(np.float32)
            x = self.op("Mul", [x, self.floats(inverse, f"{name}.inverse")], f"{name}/scaled")
        first = self.rounded(x, site.grid, name)
        if site.parts == 1:
            return [(first, site.grid)]
        rest = Grid(float(np.float32(site.grid.scale / REST_FINER)), REST_ZERO)
        missed = self.op("Sub", [x, first], f"{name}/missed")
        return [(first, site.grid), (self.rounded(missed, rest, f"{name}.rest"), rest)]

    def weight(self, rounded: Rounded, name: str) -> ir.Value:
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
        if kind == "relu":
            return self.op("Relu", [x], "activation")
        divided = self.op("Div", [x, self.floats(np.sqrt(2.0), "sqrt2")], "activation/divided")
        erf = self.op("Erf", [divided], "activation/erf")
        one = self.op("Add", [erf, self.floats(1.0, "one")], "activation/one")
        product = self.op("Mul", [x, one], "activation/product")
        return self.op("Mul", [product, self.floats(0.5, "half")], "activation")

    # ------------------------------------------------------------------------------------------------ attention

    def heads(self, x: ir.Value, layer: QuantizedLayer, name: str) -> ir.Value:
        """Return rows of tokens as [B, heads, S, width of a head]."""
        shape = self.head_shape(layer)
        split = self.op("Reshape", [x, shape], f"{name}/split")
        return self.op("Transpose", [split], f"{name}/heads", perm=[1, 2, 0, 3] if self.by_sequence else [0, 2, 1, 3])

    def head_shape(self, layer: QuantizedLayer) -> ir.Value:
        width = layer.query.weight.integers.shape[1] // layer.heads
        if not self.by_sequence:
            return self.integers([0, 0, layer.heads, width])
        if self._head_shape is None:
            prefix, self.prefix = self.prefix, ""
            parts = [self.sizes[1], self.sizes[0], self.integers([layer.heads, width])]
            self._head_shape = self.op("Concat", parts, "sizes/heads", axis=0)
            self.prefix = prefix
        return self._head_shape

    def together(self, x: ir.Value, hidden: int) -> ir.Value:
        """Return [B, heads, S, width of a head] as rows of tokens."""
        perm, shape = ([2, 0, 1, 3], [-1, hidden]) if self.by_sequence else ([0, 2, 1, 3], [0, 0, hidden])
        rows = self.op("Transpose", [x], "attention/rows", perm=perm)
        return self.op("Reshape", [rows, self.integers(shape)], "attention")

    def layer(self, layer: QuantizedLayer, x: ir.Value, bias: ir.Value) -> ir.Value:
        parts = self.site(x, layer.qkv, "qkv")
        query, key, value = (
            self.heads(self.linear(parts, part, name), layer, name)
            for part, name in ((layer.query, "query"), (layer.key, "key"), (layer.value, "value"))
        )
        columns = self.op("Transpose", [key], "key/columns", perm=[0, 1, 3, 2])
        scores = self.op("Add", [self.op("MatMul", [query, columns], "scores"), bias], "scores/masked")
        mixed = self.op("MatMul", [self.op("Softmax", [scores], "probabilities", axis=-1), value], "mixed")
        return self.rest_of_layer(layer, x, self.together(mixed, layer.value.weight.integers.shape[1]))

    def rest_of_layer(self, layer: QuantizedLayer, x: ir.Value, attended: ir.Value) -> ir.Value:
        output = self.linear(self.site(attended, layer.output_site, "output_input"), layer.output, "output")
        middle = self.norm(self.op("Add", [output, x], "attention_residual"), layer.attention_norm, "attention_norm")
        inner = self.linear(self.site(middle, layer.up_site, "up_input"), layer.up, "up")
        activated = self.activation(inner, layer.activation)
        down = self.linear(self.site(activated, layer.down_site, "down_input"), layer.down, "down")
        added = self.op("Add", [down, middle], "feedforward_residual")
        return self.norm(added, layer.feedforward_norm, "feedforward_norm")

    def first_only_layer(self, layer: QuantizedLayer, x: ir.Value, bias: ir.Value) -> ir.Value:
        """Return the layer's result for the first token alone: [B, H] by sequence, [B, 1, H] by batch.

        Keys and values are never formed: with K = X Wk, a query's scores are (q Wk^T) X^T, and its mixture of values
        is (p X) Wv, head by head. These two products stay in floating point, being B rows long.
        """
        first = self.first(x)
        query = self.linear(self.site(first, layer.qkv, "qkv"), layer.query, "query")
        hidden = layer.value.weight.integers.shape[1]
        width = hidden // layer.heads
        key, value = (self.float_heads(part, layer) for part in (layer.key, layer.value))  # [heads, H, width]
        by_head = self.op("Reshape", [query, self.integers([-1, layer.heads, 1, width])], "query/heads")
        asked = self.op("MatMul", [by_head, self.floats(key.transpose(0, 2, 1), "key.columns")], "query/keys")
        tokens = self.op("Transpose", [self.by_text(x, hidden)], "tokens/columns", perm=[0, 2, 1])
        asked = self.op("Reshape", [asked, self.integers([0, layer.heads, hidden])], "query/rows")
        scores = self.op("MatMul", [asked, tokens], "scores")
        masked = self.op("Add", [scores, self.first_bias(bias)], "scores/masked")
        weights = self.op("Softmax", [masked], "probabilities", axis=-1)
        mixed = self.op("MatMul", [weights, self.by_text(x, hidden)], "mixed")
        mixed = self.op("Reshape", [mixed, self.integers([0, layer.heads, 1, hidden])], "mixed/heads")
        attended = self.op("MatMul", [mixed, self.floats(value, "value.columns")], "attended")
        shape = [-1, hidden] if self.by_sequence else [-1, 1, hidden]
        return self.rest_of_layer(layer, first, self.op("Reshape", [attended, self.integers(shape)], "attention"))

    def first(self, x: ir.Value) -> ir.Value:
        """Return the rows of each text's first token."""
        if not self.by_sequence:
            return self.op("Slice", [x, self.integers([0]), self.integers([1]), self.integers([1])], "first")
        return self.op("Slice", [x, self.integers([0]), self.sizes[0], self.integers([0])], "first")

    def by_text(self, x: ir.Value, hidden: int) -> ir.Value:
        """Return the states as [B, S, H]."""
        if not self.by_sequence:
            return x
        if self._texts is None:
            shape = self.op("Concat", [self.sizes[1], self.sizes[0], self.integers([hidden])], "sizes", axis=0)
            split = self.op("Reshape", [x, shape], "texts/split")
            self._texts = self.op("Transpose", [split], "texts", perm=[1, 0, 2])
        return self._texts

    def first_bias(self, bias: ir.Value) -> ir.Value:
        """Return what is added to the scores of the first token, [B, 1 or heads, S]."""
        row = self.op("Slice", [bias, self.integers([0]), self.integers([1]), self.integers([2])], "bias/first")
        return self.op("Squeeze", [row, self.integers([2])], "bias")

    def float_heads(self, layer: QuantizedLinear, whole: QuantizedLayer) -> NDArray[np.float32]:
        """Return the weight that the integers stand for, for unscaled inputs, [heads, H, width of a head]."""
        scale = whole.qkv.scale
        weight = layer.weight.weight if layer.rest is None else layer.weight.weight + layer.rest.weight
        weight = weight if scale is None else weight / scale[:, None]
        return np.ascontiguousarray(weight.reshape(len(weight), whole.heads, -1).transpose(1, 0, 2))

    # ------------------------------------------------------------------------------------------------ both ends

    def _sizes(self) -> list[ir.Value]:
        """Return batch size and length, each [1] int64."""
        shape = self.op("Shape", [self.graph.inputs[0]], "sizes/ids")
        return [self.op("Gather", [shape, self.integers([place])], f"sizes/{place}", axis=0) for place in (0, 1)]

    def _score_bias(self, biases: list[ir.Value]) -> ir.Value:
        """Return the sum of what is added to the scores, expanded over the queries once for all layers."""
        total = biases[0]
        for place, bias in enumerate(biases[1:]):
            total = self.op("Add", [total, bias], f"bias/sum{place}")
        shape = [self.sizes[0], self.integers([1]), self.sizes[1], self.sizes[1]]
        return self.op("Expand", [total, self.op("Concat", shape, "sizes/scores", axis=0)], "bias/expanded")

    def _sequence_first(self, embedded: ir.Value) -> None:
        """Make the sum of embeddings [S, B, H] by turning the ids that look them up, which are small."""
        for gather, place in lookups(embedded):
            index = gather.inputs[place]
            assert index is not None  # noqa: S101 - a Gather has an index
            turned = ir.node("Transpose", [index], {"perm": [1, 0]})
            turned.outputs[0].name = f"{gather.name}/turned{place}"
            self.graph.insert_before(gather, turned)
            gather.replace_input_with(place, turned.outputs[0])

    def _finish(self, state: ir.Value, hidden: int, *, cls_only: bool) -> onnx.ModelProto:
        tokens_first = self.by_sequence and not cls_only
        if tokens_first:
            shape = self.op("Concat", [self.sizes[1], self.sizes[0], self.integers([hidden])], "sizes/states", axis=0)
            state = self.op("Reshape", [state, shape], "states/split")
        elif self.by_sequence:
            state = self.op("Unsqueeze", [state, self.integers([1])], "first/state")
        if self.encoder.hidden_order is not None:
            # Channels come first in between: rows of memory are put in order, not single numbers.
            places = self.constant(np.argsort(self.encoder.hidden_order).astype(np.int64), "order")
            before = [2, 1, 0] if tokens_first else [2, 0, 1]
            channels = self.op("Transpose", [state], "states/channels", perm=before)
            ordered = self.op("Gather", [channels, places], "states/ordered", axis=0)
            state = self.op("Transpose", [ordered], "states", perm=[1, 2, 0])
        elif tokens_first:
            state = self.op("Transpose", [state], "states", perm=[1, 0, 2])
        state.name, state.dtype = LAST_HIDDEN_STATE, ir.DataType.FLOAT
        state.shape = ir.Shape(["batch_size", 1 if cls_only else "sequence_length", hidden])
        self.graph.outputs.append(state)
        model = ir.to_proto(self.model)
        if self.encoder.tail is not None:
            tail = self.encoder.tail.graph
            model.graph.node.extend(tail.node)
            model.graph.initializer.extend(tail.initializer)
            model.graph.output.extend(tail.output)
        return model
