"""Writes the attention of both arrangements.

The sequence-major arrangement has no softmax, because runtimes sum a softmax in different orders: in lanes as wide as
the processor's, and in another number of lanes if a batch is padded. A matrix product adds one key after the other, and
a masked key adds an exact zero, so a text has the same vector on every processor and beside any neighbours
(docs/decisions/0014):

    E = exp(K Q^T)                  [B, heads, keys, queries]; `peaks.py` keeps it finite
    (m V)^T E / (m^T E)             [B, heads, width, queries]; m is 0 for masked keys, else 1

Keys come before queries because ONNX Runtime is faster with that order from 64 tokens on (docs/decisions/0016).
The batch-major arrangement has the attention that OpenVINO fuses.
"""

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.graph.masks import MASKED
from bge_export.precision.int8.plan.peaks import CAP
from bge_export.precision.int8.plan.scores import KEY_GREATEST
from bge_export.precision.int8.round.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear
from bge_export.precision.int8.write.parts import Parts, RoundedInput

VECTOR = 16
"""Number of keys that the widest processors add at once; a multiple of that of other processors."""


class Attention(Parts):
    """Appends the attention of an encoder's layers to its prelude."""

    def __init__(self, encoder: QuantizedEncoder, *, by_sequence: bool) -> None:
        """Start with an encoder's prelude."""
        super().__init__(encoder.prelude, by_sequence=by_sequence)
        self.encoder = encoder

    def attention(self, layer: QuantizedLayer, x: ir.Value) -> ir.Value:
        """Return the attention of a layer's input; both are rows of tokens or [B, S, H]."""
        parts = self.parts(self.scaled(x, layer.qkv, "qkv"), layer.qkv, "qkv")
        return self._by_sequence(layer, parts) if self.by_sequence else self._by_batch(layer, parts)

    # ------------------------------------------------------------------------------------------------ by sequence

    def _by_sequence(self, layer: QuantizedLayer, x: RoundedInput) -> ir.Value:
        hidden, width = _widths(layer)

        def heads(rows: ir.Value, name: str) -> ir.Value:
            return self.split_rows(rows, layer.heads, width, name)

        value = self.linear(x, layer.value, "value")
        key = heads(self.linear(x, layer.key.lowered(layer.peaks.offset), "key"), "key")
        query = heads(self.linear(x, layer.query, "query"), "query")
        scores = self.op("MatMul", [key, self.transposed(query, "query")], "scores")

        # Without a maximum to subtract, the mask weights the values and the ones; with one, it is added to the scores.
        if layer.peaks.bound == "maximum":
            masked = self.op("Add", [scores, self.once("bias/keys", self._keys_first)], "scores/masked")
            scores, ones = self.lowered(masked, keys=2), self.once("ones", self._ones)
        else:
            value = self.op("Mul", [value, self.once("mask/rows", self._mask_rows)], "value/masked")
            ones = self.once("mask/ones", self._mask_ones)
        if layer.peaks.bound == "cap":
            scores = self.op("Min", [scores, self.floats(CAP, "cap")], "scores/capped")

        weights = self.op("Exp", [scores], "weights")
        values = self.transposed(heads(value, "value"), "value")
        mixed = self.op("Div", [self.op("MatMul", [values, weights], "sums"), self.totals(ones, weights)], "mixed")
        return self.together(mixed, hidden, [3, 0, 1, 2])

    def _mask(self) -> ir.Value:
        """Return the weights of keys from the bias of their scores: 0 for masked keys, else 1, [B, 1, 1, S]."""
        return self.op("Exp", [self.bias()], "mask")

    def _mask_rows(self) -> ir.Value:
        """Return the mask for rows of tokens, [S * B, 1]."""
        shape = self.op("Concat", self.sizes, "sizes/texts_tokens", axis=0)
        by_text = self.op("Reshape", [self.once("mask", self._mask), shape], "mask/texts")
        by_token = self.op("Transpose", [by_text], "mask/tokens", perm=[1, 0])
        return self.op("Reshape", [by_token, self.integers([-1, 1])], "mask/rows")

    def _mask_ones(self) -> ir.Value:
        """Return the mask that replaces the ones, [B, 1, 2, S]."""
        shape = self.op("Concat", [self.sizes[0], self.integers([1, 2]), self.sizes[1]], "sizes/mask", axis=0)
        return self.op("Expand", [self.once("mask", self._mask), shape], "mask/ones")

    def _ones(self) -> ir.Value:
        """Return ones that sum over keys, [2, S]."""
        shape = self.op("Concat", [self.integers([2]), self.sizes[1]], "sizes/ones", axis=0)
        return self.op("Expand", [self.floats(1.0, "one"), shape], "ones")

    def totals(self, ones: ir.Value, weights: ir.Value) -> ir.Value:
        """Return the sums of weights over keys, the second to last axis, which becomes 1.

        There are two rows of ones, and one sum is cut off again: with one row, ONNX Runtime adds four keys at once and
        the remainder one by one, so a sum would depend on the padding.
        """
        total = self.op("MatMul", [ones, weights], "totals")
        return self.op("Slice", [total, *(self.integers([number]) for number in (0, 1, -2))], "total")

    def lowered(self, scores: ir.Value, *, keys: int) -> ir.Value:
        """Return the scores minus their maximum over the axis of keys."""
        peak = self.op("ReduceMax", [scores], "scores/peak", axes=[keys], keepdims=1)
        return self.op("Sub", [scores, peak], "scores/lowered")

    def _keys_first(self) -> ir.Value:
        """Return the bias with keys before queries, expanded over the queries once for all layers."""
        shape = [self.sizes[0], self.integers([1]), self.sizes[1], self.sizes[1]]
        transposed = self.op("Transpose", [self.bias()], "bias/turned", perm=[0, 1, 3, 2])
        return self.op("Expand", [transposed, self.op("Concat", shape, "sizes/scores", axis=0)], "bias/keys")

    # ------------------------------------------------------------------------------------------------ by batch

    def _by_batch(self, layer: QuantizedLayer, x: RoundedInput) -> ir.Value:
        hidden, width = _widths(layer)
        shape = self.integers([0, 0, layer.heads, width])

        def heads(rows: ir.Value, name: str) -> ir.Value:
            return self.op(
                "Transpose", [self.op("Reshape", [rows, shape], f"{name}/split")], f"{name}/heads", perm=[0, 2, 1, 3]
            )

        value = heads(self._whole(self.linear(x, layer.value, "value"), "value"), "value")
        asking, asked = self._scored(x, layer)
        query, key = heads(asking, "query"), heads(asked, "key")

        scores = self.op("MatMul", [query, self.transposed(key, "key")], "scores")
        masked = self.op("Add", [scores, self.once("bias/whole", self._whole_bias)], "scores/masked")
        mixed = self.op("MatMul", [self.op("Softmax", [masked], "probabilities", axis=-1), value], "mixed")
        return self.together(mixed, hidden, [0, 2, 1, 3])

    def _scored(self, x: RoundedInput, layer: QuantizedLayer) -> tuple[ir.Value, ir.Value]:
        """Return queries and keys, rounded if the layer says how.

        Keys are padded as quantized values, before they are dequantized: if dequantized keys were padded, OpenVINO
        would compute the scores in floating point.
        """
        plan = layer.scores
        if plan is None:
            return self.linear(x, layer.query, "query"), self._whole(self.linear(x, layer.key, "key"), "key")

        query = self.linear(x, layer.query.times(plan.balance), "query")
        key = self.linear(x, layer.key.lowered(plan.middle).times(np.reciprocal(plan.balance)), "key")

        least, greatest = (self.floats(sign * KEY_GREATEST * plan.key_step, f"key.{sign}") for sign in (-1, 1))
        key = self.op("Clip", [key, least, greatest], "key/within")
        return (
            self.rounded_evenly(query, plan.query_step, "query"),
            self.rounded_evenly(key, plan.key_step, "key", lambda codes: self._whole(codes, "key", np.int8)),
        )

    def _whole(self, x: ir.Value, name: str, kind: type[np.number[Any]] = np.float32) -> ir.Value:
        """Return keys or values, [B, S, H], with S zero-padded to whole vectors."""
        pads = self.once(
            "sizes/padding",
            lambda: self.op(
                "Concat", [self.integers([0] * 4), self._missing(), self.integers([0])], "sizes/padding", axis=0
            ),
        )
        return self.op("Pad", [x, pads, self.constant(np.array(0, kind), f"{name}.nothing")], f"{name}/padded")

    def _whole_bias(self) -> ir.Value:
        pads = self.op("Concat", [self.integers([0] * 7), self._missing()], "sizes/bias_padding", axis=0)
        return self.op("Pad", [self.bias(), pads, self.floats(MASKED, "masked")], "bias/whole")

    def _missing(self) -> ir.Value:
        """Return the number of keys missing in the last vector, [1]."""
        return self.once(
            "sizes/missing",
            lambda: self.op(
                "Mod", [self.op("Neg", [self.sizes[1]], "sizes/negative"), self.integers([VECTOR])], "sizes/missing"
            ),
        )

    # ------------------------------------------------------------------------------------------------ first token

    def first_attention(self, layer: QuantizedLayer, x: ir.Value) -> ir.Value:
        """Return the attention of the first token, [B, H] if sequence-major, [B, 1, H] if batch-major.

        Keys and values are never formed: with K = X Wk, the scores of a query are X (Wk q), and its mixture of values
        is (X^T p) Wv, head by head. These two products stay in floating point, since they have only B rows.
        """
        scaled = self.first_scaled(x, layer.qkv, "qkv")
        query = self.linear(self.parts(scaled, layer.qkv, "qkv", only_first=True), layer.query, "query")

        hidden, width = _widths(layer)
        key, value = (_float_heads(part, layer) for part in (layer.key, layer.value))  # [heads, H, width]

        # A column: ONNX Runtime multiplies a matrix by a column twice as fast as a row by a matrix.
        by_head = self.op("Reshape", [query, self.integers([-1, layer.heads, width, 1])], "query/heads")
        asked = self.op("MatMul", [self.floats(key, "key.rows"), by_head], "query/keys")
        asked = self.op("Reshape", [asked, self.integers([0, layer.heads, hidden])], "query/rows")

        texts = self._by_text(x, hidden)
        # Heads come last: the matrix is then so narrow that all sums run over whole columns, at any length of text.
        scores = self.op("MatMul", [texts, self.op("Transpose", [asked], "query/columns", perm=[0, 2, 1])], "scores")
        masked = self.op("Add", [scores, self.once("bias/first", self._first_bias)], "scores/masked")
        weights = self.op("Exp", [self.lowered(masked, keys=1)], "weights")

        tokens = self.op("Transpose", [texts], "tokens/columns", perm=[0, 2, 1])
        mixed = self.op("Transpose", [self.op("MatMul", [tokens, weights], "sums")], "mixed/rows", perm=[0, 2, 1])
        mixed = self.op("Reshape", [mixed, self.integers([0, layer.heads, 1, hidden])], "mixed/heads")
        sums = self.op("MatMul", [mixed, self.floats(value, "value.columns")], "attended/sums")

        total = self.totals(self.once("ones", self._ones), weights)
        total = self.op("Reshape", [total, self.integers([-1, layer.heads, 1, 1])], "total/heads")

        shape = [-1, hidden] if self.by_sequence else [-1, 1, hidden]
        return self.op("Reshape", [self.op("Div", [sums, total], "attended"), self.integers(shape)], "attention")

    def _by_text(self, x: ir.Value, hidden: int) -> ir.Value:
        """Return the states as [B, S, H]."""
        if not self.by_sequence:
            return x
        shape = self.op("Concat", [self.sizes[1], self.sizes[0], self.integers([hidden])], "sizes", axis=0)
        return self.op("Transpose", [self.op("Reshape", [x, shape], "texts/split")], "texts", perm=[1, 0, 2])

    def _first_bias(self) -> ir.Value:
        """Return the bias of the first token's scores, [B, S, 1 or heads]."""
        bounds = [self.integers([n]) for n in (0, 1, 2)]
        row = self.op(
            "Squeeze", [self.op("Slice", [self.bias(), *bounds], "bias/row"), self.integers([2])], "bias/squeezed"
        )
        return self.op("Transpose", [row], "bias/first", perm=[0, 2, 1])


def _widths(layer: QuantizedLayer) -> tuple[int, int]:
    """Return the width of all heads together, and of one head."""
    hidden = layer.value.weight.integers.shape[1]
    return hidden, hidden // layer.heads


def _float_heads(layer: QuantizedLinear, whole: QuantizedLayer) -> NDArray[np.float32]:
    """Return the dequantized weight for unscaled inputs, [heads, H, width of a head]."""
    scale = whole.qkv.scale
    weight = layer.weight.weight if layer.rest is None else layer.weight.weight + layer.rest.weight
    weight = weight if scale is None else weight / scale[:, None]
    return np.ascontiguousarray(weight.reshape(len(weight), whole.heads, -1).transpose(1, 0, 2))
