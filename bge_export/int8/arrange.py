"""Writes a quantized encoder as a graph: plain QDQ, opset 17, in the arrangement that a runtime runs fastest.

    SEQUENCE_MAJOR   rows of tokens [S*B, width], `Gemm` with a 32-bit bias: ONNX Runtime fuses each linear layer with
                     its bias and both attention products with their transpositions (Node, wasm, Python)
    BATCH_MAJOR      [B, S, width], `MatMul` and `Add`: OpenVINO fuses attention, and rounding into the layer before.
                     Queries and keys are rounded too, since it multiplies them as integers. What is rounded is
                     normalised a second time, scaled, in place of a product. Keys and values are padded to whole
                     vectors: the softmax adds up what is left of one in another order, so that a text's embedding would
                     depend on the length of its batch

Both hold the same integers. What was measured, operator by operator: docs/decisions/0016.
"""

from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.int8.parts import Parts, RoundedInput
from bge_export.int8.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Site
from bge_export.int8.scores import KEY_GREATEST
from bge_export.int8.tables import lookups, round_tables

Arrangement = Literal["sequence-major", "batch-major"]

VECTOR = 16
"""Keys that the widest processors add at once, a multiple of what others do."""

MASKED = -1e4
"""Added to the scores of keys that are none; float16 holds it, and its exponential is 0."""


def arrange(encoder: QuantizedEncoder, arrangement: Arrangement, *, cls_only: bool = False) -> onnx.ModelProto:
    """Return the graph.

    Args:
        encoder: the quantized encoder.
        arrangement: which order of axes the layers work in.
        cls_only: whether only the first token's state is returned, [B, 1, H], and the last layer computes no other.
    """
    writer = _Writer(encoder, by_sequence=arrangement == "sequence-major")
    return writer.write(cls_only=cls_only)


class _Writer(Parts):
    """Appends an encoder's layers to its prelude."""

    def __init__(self, encoder: QuantizedEncoder, *, by_sequence: bool) -> None:
        super().__init__(encoder.prelude, by_sequence=by_sequence)
        self.encoder = encoder
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
        scaled = self.scaled(x, layer.qkv, "qkv")
        parts = self.parts(scaled, layer.qkv, "qkv")
        value = self.heads(self.whole(self.linear(parts, layer.value, "value"), "value"), layer, "value")
        asking, asked = self.scored(parts, layer)
        query, key = self.heads(asking, layer, "query"), self.heads(asked, layer, "key")
        columns = self.op("Transpose", [key], "key/columns", perm=[0, 1, 3, 2])
        scores = self.op("Add", [self.op("MatMul", [query, columns], "scores"), bias], "scores/masked")
        mixed = self.op("MatMul", [self.op("Softmax", [scores], "probabilities", axis=-1), value], "mixed")
        return self.rest_of_layer(layer, x, self.together(mixed, layer.value.weight.integers.shape[1]))

    def scored(self, x: RoundedInput, layer: QuantizedLayer) -> tuple[ir.Value, ir.Value]:
        """Return queries and keys; by batch they are rounded, where the layer says how.

        Keys are padded as codes, between rounding and its reverse: of padded numbers OpenVINO would compute the scores
        in floating point.
        """
        plan = layer.scores
        if self.by_sequence or plan is None:
            return self.linear(x, layer.query, "query"), self.whole(self.linear(x, layer.key, "key"), "key")
        query = self.linear(x, layer.query.times(plan.balance), "query")
        key = self.linear(x, layer.key.lowered(plan.middle).times(np.reciprocal(plan.balance)), "key")
        least, greatest = (self.floats(sign * KEY_GREATEST * plan.key_step, f"key.{sign}") for sign in (-1, 1))
        key = self.op("Clip", [key, least, greatest], "key/within")
        return (
            self.rounded_evenly(query, plan.query_step, "query"),
            self.rounded_evenly(key, plan.key_step, "key", lambda codes: self.whole(codes, "key", np.int8)),
        )

    def rest_of_layer(
        self, layer: QuantizedLayer, x: ir.Value, attended: ir.Value, *, only_first: bool = False
    ) -> ir.Value:
        def linear(value: ir.Value, site: Site, part: QuantizedLinear, name: str) -> ir.Value:
            scaled = self.scaled(value, site, f"{name}_input")
            return self.linear(self.parts(scaled, site, f"{name}_input", only_first=only_first), part, name)

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
        # Scaled before the rows are taken: of the two the other way round OpenVINO makes wrong codes, see 0016.
        scaled = self.first(self.scaled(x, layer.qkv, "qkv"), "qkv/first_scaled")
        asking = self.parts(scaled, layer.qkv, "qkv", only_first=True)
        query = self.linear(asking, layer.query, "query")
        hidden = layer.value.weight.integers.shape[1]
        width = hidden // layer.heads
        key, value = (self.float_heads(part, layer) for part in (layer.key, layer.value))  # [heads, H, width]
        # A column: ONNX Runtime multiplies by one twice as fast as a row by as many numbers.
        by_head = self.op("Reshape", [query, self.integers([-1, layer.heads, width, 1])], "query/heads")
        asked = self.op("MatMul", [self.floats(key, "key.rows"), by_head], "query/keys")
        texts = self.by_text(x, hidden)
        tokens = self.op("Transpose", [texts], "tokens/columns", perm=[0, 2, 1])
        asked = self.op("Reshape", [asked, self.integers([0, layer.heads, hidden])], "query/rows")
        scores = self.op("MatMul", [asked, tokens], "scores")
        masked = self.op("Add", [scores, self.first_bias(bias)], "scores/masked")
        weights = self.op("Softmax", [masked], "probabilities", axis=-1)
        mixed = self.op("MatMul", [weights, texts], "mixed")
        mixed = self.op("Reshape", [mixed, self.integers([0, layer.heads, 1, hidden])], "mixed/heads")
        attended = self.op("MatMul", [mixed, self.floats(value, "value.columns")], "attended")
        shape = [-1, hidden] if self.by_sequence else [-1, 1, hidden]
        attended = self.op("Reshape", [attended, self.integers(shape)], "attention")
        return self.rest_of_layer(layer, first, attended, only_first=True)

    def by_text(self, x: ir.Value, hidden: int) -> ir.Value:
        """Return the states as [B, S, H]; by batch, S is that of `whole`."""
        if not self.by_sequence:
            return self.whole(x, "texts")
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
        """Return the sum of what is added to the scores.

        By sequence it is expanded over the queries, once for all layers; by batch the keys are `whole`.
        """
        total = biases[0]
        for place, bias in enumerate(biases[1:]):
            total = self.op("Add", [total, bias], f"bias/sum{place}")
        if not self.by_sequence:
            missing = self.op(
                "Mod", [self.op("Neg", [self.sizes[1]], "sizes/negative"), self.integers([VECTOR])], "sizes/missing"
            )
            none = self.integers([0])
            self._padding = self.op("Concat", [self.integers([0] * 4), missing, none], "sizes/padding", axis=0)
            ends = self.op("Concat", [self.integers([0] * 7), missing], "sizes/bias_padding", axis=0)
            return self.op("Pad", [total, ends, self.floats(MASKED, "masked")], "bias/whole")
        shape = [self.sizes[0], self.integers([1]), self.sizes[1], self.sizes[1]]
        return self.op("Expand", [total, self.op("Concat", shape, "sizes/scores", axis=0)], "bias/expanded")

    def whole(self, x: ir.Value, name: str, kind: type[np.number[Any]] = np.float32) -> ir.Value:
        """Return what is read as keys or values, [B, S, H], with S rounded up to whole vectors, by zeros; by batch."""
        if self.by_sequence:
            return x
        return self.op("Pad", [x, self._padding, self.constant(np.array(0, kind), f"{name}.nothing")], f"{name}/padded")

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
            state = self._ordered(state, self.encoder.hidden_order)
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

    def _ordered(self, state: ir.Value, order: NDArray[np.int64]) -> ir.Value:
        """Return the states, rows of tokens or [B, S, H], with channels in the model's order."""
        places = self.constant(np.argsort(order).astype(np.int64), "order")
        if not self.by_sequence:
            return self.op("Gather", [state, places], "states", axis=2)
        # Channels come first in between: rows of memory are put in order, not single numbers. In two dimensions, since
        # ONNX Runtime turns three much more slowly.
        channels = self.op("Transpose", [state], "states/channels", perm=[1, 0])
        ordered = self.op("Gather", [channels, places], "states/ordered", axis=0)
        return self.op("Transpose", [ordered], "states/back", perm=[1, 0])
