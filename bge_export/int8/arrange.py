"""Writes a quantized encoder as a graph: plain QDQ, opset 17, in the arrangement that a runtime runs fastest.

    SEQUENCE_MAJOR   rows of tokens [S*B, width], `Gemm` with a 32-bit bias: ONNX Runtime fuses each linear layer with
                     its bias and both attention products with their transpositions (Node, wasm, Python)
    BATCH_MAJOR      [B, S, width], `MatMul` and `Add`: OpenVINO fuses attention, and rounding into the layer before

Both hold the same integers, scales and zero points. What was measured, operator by operator: docs/decisions/0016.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Parts:
    """A linear layer's input, rounded.

    Attributes:
        whole: in one part, with its grid.
        same: the rows of `whole` that have a second part.
        rest: their second part, with its grid; None for one part.
        narrow: whether only first tokens have one.
    """

    whole: ir.Value
    grid: Grid
    same: ir.Value | None = None
    rest: ir.Value | None = None
    rest_grid: Grid | None = None
    narrow: bool = False


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
        self._first_rows: ir.Value | None = None

    def write(self, *, cls_only: bool) -> onnx.ModelProto:
        embedded, *biases = list(self.graph.outputs)
        self.graph.outputs.clear()
        hidden = len(self.encoder.embedding_norm.gamma)
        if self.by_sequence:
            self._sequence_first(embedded)
        embedded = round_tables(self.graph, embedded)
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

    def rounded(self, x: ir.Value, grid: Grid, name: str) -> tuple[ir.Value, ir.Value]:
        """Return x rounded to a grid: as codes, and back."""
        codes = self.op("QuantizeLinear", [x, *self.ends(grid, name)], f"{name}/codes")
        return codes, self.unrounded(codes, grid, name)

    def unrounded(self, codes: ir.Value, grid: Grid, name: str) -> ir.Value:
        return self.op("DequantizeLinear", [codes, *self.ends(grid, name)], name)

    def ends(self, grid: Grid, name: str) -> list[ir.Value]:
        return [self.floats(grid.scale, f"{name}.scale"), self.constant(np.array(grid.zero, np.uint8), f"{name}.zero")]

    def site(self, x: ir.Value, site: Site, name: str, *, only_first: bool = False) -> "_Parts":
        """Return a linear layer's input in its parts; with `only_first` its rows are those of first tokens already."""
        if site.scale is not None:
            inverse = (1 / site.scale.astype(np.float64)).astype(np.float32)
            x = self.op("Mul", [x, self.floats(inverse, f"{name}.inverse")], f"{name}/scaled")
        codes, whole = self.rounded(x, site.grid, name)
        if site.parts == 1:
            return _Parts(whole, site.grid)
        narrow = site.rows == "first" and not only_first
        same = whole
        if narrow:
            rows = self.first(codes, f"{name}/first_codes")
            x, same = self.first(x, f"{name}/first_input"), self.unrounded(rows, site.grid, f"{name}/first")
        rest = Grid(float(np.float32(site.grid.scale / REST_FINER)), REST_ZERO)
        missed = self.op("Sub", [x, same], f"{name}/missed")
        return _Parts(whole, site.grid, same, self.rounded(missed, rest, f"{name}.rest")[1], rest, narrow=narrow)

    def weight(self, rounded: Rounded, name: str) -> ir.Value:
        zeros = self.constant(np.zeros(len(rounded.scale), np.int8), f"{name}.zero")
        inputs = [self.constant(rounded.integers, f"{name}.weight"), self.floats(rounded.scale, f"{name}.scale"), zeros]
        return self.op("DequantizeLinear", inputs, f"{name}/weight", axis=1)

    def linear(self, parts: "_Parts", layer: QuantizedLinear, name: str) -> ir.Value:
        """Return x @ weight + bias for x in one part or two."""
        weight = self.weight(layer.weight, name)
        result = self.product(parts.whole, parts.grid, weight, layer.weight.scale, layer.bias, name)
        if parts.rest is None or parts.rest_grid is None or parts.same is None:
            return result
        more = self.product(parts.rest, parts.rest_grid, weight, layer.weight.scale, None, f"{name}.rest")
        if layer.rest is not None:
            finer = self.weight(layer.rest, f"{name}.finer")
            finest = self.product(parts.same, parts.grid, finer, layer.rest.scale, None, f"{name}.finer")
            more = self.op("Add", [more, finest], f"{name}/more")
        if parts.narrow:
            return self.added_to_first(result, more, name)
        return self.op("Add", [result, more], f"{name}/whole")

    def added_to_first(self, x: ir.Value, more: ir.Value, name: str) -> ir.Value:
        """Return x with more added to the rows of first tokens."""
        if not self.by_sequence:
            rows = self.op("Add", [self.first(x, f"{name}/first_part"), more], f"{name}/first")
            ends = [self.integers([1]), self.integers([2**62]), self.integers([1])]
            return self.op("Concat", [rows, self.op("Slice", [x, *ends], f"{name}/others")], f"{name}/whole", axis=1)
        # ONNX Runtime adds in place: a Concat would copy all rows.
        return self.op("ScatterND", [x, self.first_rows(), more], f"{name}/whole", reduction="add")

    def first_rows(self) -> ir.Value:
        """Return the places of first tokens' rows, [B, 1] int64: they are the first B."""
        if self._first_rows is None:
            prefix, self.prefix = self.prefix, ""
            zero, one = (self.constant(np.array(number, np.int64), f"number.{number}") for number in (0, 1))
            count = self.op("Squeeze", [self.sizes[0]], "sizes/texts")
            rows = self.op("Range", [zero, count, one], "first/range")
            self._first_rows = self.op("Unsqueeze", [rows, self.integers([1])], "first/rows")
            self.prefix = prefix
        return self._first_rows

    def product(
        self, x: ir.Value, grid: Grid, weight: ir.Value, scale: NDArray[np.float32],
        bias: NDArray[np.float32] | None, name: str,
    ) -> ir.Value:  # fmt: skip
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

    def rest_of_layer(
        self, layer: QuantizedLayer, x: ir.Value, attended: ir.Value, *, only_first: bool = False
    ) -> ir.Value:
        def linear(value: ir.Value, site: Site, part: QuantizedLinear, name: str) -> ir.Value:
            return self.linear(self.site(value, site, f"{name}_input", only_first=only_first), part, name)

        output = linear(attended, layer.output_site, layer.output, "output")
        middle = self.norm(self.op("Add", [output, x], "attention_residual"), layer.attention_norm, "attention_norm")
        inner = linear(middle, layer.up_site, layer.up, "up")
        activated = self.activation(inner, layer.activation)
        down = linear(activated, layer.down_site, layer.down, "down")
        added = self.op("Add", [down, middle], "feedforward_residual")
        return self.norm(added, layer.feedforward_norm, "feedforward_norm")

    def first_only_layer(self, layer: QuantizedLayer, x: ir.Value, bias: ir.Value) -> ir.Value:
        """Return the layer's result for the first token alone: [B, H] by sequence, [B, 1, H] by batch.

        Keys and values are never formed: with K = X Wk, a query's scores are (q Wk^T) X^T, and its mixture of values
        is (p X) Wv, head by head. These two products stay in floating point, being B rows long.
        """
        first = self.first(x, "first")
        query = self.linear(self.site(first, layer.qkv, "qkv", only_first=True), layer.query, "query")
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
        attended = self.op("Reshape", [attended, self.integers(shape)], "attention")
        return self.rest_of_layer(layer, first, attended, only_first=True)

    def first(self, x: ir.Value, name: str) -> ir.Value:
        """Return the rows of each text's first token."""
        if not self.by_sequence:
            return self.op("Slice", [x, self.integers([0]), self.integers([1]), self.integers([1])], name)
        return self.op("Slice", [x, self.integers([0]), self.sizes[0], self.integers([0])], name)

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
        if self.encoder.hidden_order is not None:
            # Channels come first in between: rows of memory are put in order, not single numbers. In two dimensions,
            # since ONNX Runtime turns three much more slowly.
            places = self.constant(np.argsort(self.encoder.hidden_order).astype(np.int64), "order")
            to_channels, back = ([1, 0], [1, 0]) if self.by_sequence else ([2, 0, 1], [1, 2, 0])
            channels = self.op("Transpose", [state], "states/channels", perm=to_channels)
            ordered = self.op("Gather", [channels, places], "states/ordered", axis=0)
            state = self.op("Transpose", [ordered], "states/back", perm=back)
        if self.by_sequence and cls_only:
            state = self.op("Unsqueeze", [state, self.integers([1])], "first/state")
        elif self.by_sequence:
            shape = self.op("Concat", [self.sizes[1], self.sizes[0], self.integers([hidden])], "sizes/states", axis=0)
            state = self.op("Transpose", [self.op("Reshape", [state, shape], "states/split")], "states", perm=[1, 0, 2])
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
