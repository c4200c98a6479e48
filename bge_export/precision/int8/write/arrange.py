"""Writes a quantized encoder as a graph: plain QDQ, opset 17, in the arrangement that its runtime runs fastest.

    SEQUENCE_MAJOR   rows of tokens [S*B, width], `Gemm` with a 32-bit bias: ONNX Runtime fuses each linear layer with
                     its bias and both attention products with their transpositions (Node, wasm, Python)
    BATCH_MAJOR      [B, S, width], `MatMul` and `Add`: OpenVINO fuses attention, and fuses rounding into the layer
                     before. Queries and keys are rounded too, since it multiplies them as integers. Rounded inputs are
                     normalised a second time with their scale, instead of a product. Keys and values are padded to
                     whole vectors: the softmax adds up an incomplete vector in another order, so a text's embedding
                     would depend on the length of its batch

Both contain the same integers. Measurements of each operator: docs/decisions/0016.
"""

from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bge_export.contracts import LAST_HIDDEN_STATE
from bge_export.precision.int8.round.quantized import QuantizedEncoder, QuantizedLayer, QuantizedLinear, Site
from bge_export.precision.int8.write.attention import Attention
from bge_export.precision.int8.write.tables import lookups, round_tables

Arrangement = Literal["sequence-major", "batch-major"]


def arrange(encoder: QuantizedEncoder, arrangement: Arrangement, *, cls_only: bool = False) -> onnx.ModelProto:
    """Return the graph.

    Args:
        encoder: the quantized encoder.
        arrangement: axis order of the layers.
        cls_only: whether only the first token's state is returned, [B, 1, H]; the last layer then computes no other.
    """
    writer = _Writer(encoder, by_sequence=arrangement == "sequence-major")
    return writer.write(cls_only=cls_only)


class _Writer(Attention):
    """Appends an encoder's layers to its prelude."""

    def write(self, *, cls_only: bool) -> onnx.ModelProto:
        embedded, *self.biases = list(self.graph.outputs)
        self.graph.outputs.clear()
        hidden = len(self.encoder.embedding_norm.gamma)

        if self.by_sequence:
            self._sequence_first(embedded)
        embedded = round_tables(self.graph).get(embedded, embedded)
        self.sizes = self._sizes()
        if self.by_sequence:
            embedded = self.op("Reshape", [embedded, self.integers([-1, hidden])], "embeddings/rows")

        state = self.norm(embedded, self.encoder.embedding_norm, "embeddings/norm")
        for layer_index, layer in enumerate(self.encoder.layers):
            self.prefix = f"layer.{layer_index}/"
            last = cls_only and layer_index == len(self.encoder.layers) - 1

            attended = self.first_attention(layer, state) if last else self.attention(layer, state)
            state = self.first(state, "first") if last else state
            state = self.rest_of_layer(layer, state, attended, only_first=last)

        self.prefix = ""
        return self._finish(state, hidden, cls_only=cls_only)

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

    def _sizes(self) -> list[ir.Value]:
        """Return batch size and sequence length, each [1] int64."""
        shape = self.op("Shape", [self.graph.inputs[0]], "sizes/ids")
        return [self.op("Gather", [shape, self.integers([axis])], f"sizes/{axis}", axis=0) for axis in (0, 1)]

    def _sequence_first(self, embedded: ir.Value) -> None:
        """Turn the sum of embeddings into [S, B, H] by transposing the ids of its lookups, which are small."""
        for gather, position in lookups(embedded):
            index = gather.inputs[position]
            assert index is not None  # noqa: S101 - a Gather has an index

            transposed = ir.node("Transpose", [index], {"perm": [1, 0]})
            transposed.outputs[0].name = f"{gather.name}/turned{position}"
            self.graph.insert_before(gather, transposed)
            gather.replace_input_with(position, transposed.outputs[0])

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
        """Return the states, rows of tokens or [B, S, H], with channels in the model's original order."""
        positions = self.constant(np.argsort(order).astype(np.int64), "order")
        if not self.by_sequence:
            return self.op("Gather", [state, positions], "states", axis=2)

        # Channels come first in between, so that whole rows of memory are reordered, not single numbers. In two
        # dimensions, since ONNX Runtime transposes three much more slowly.
        channels = self.op("Transpose", [state], "states/channels", perm=[1, 0])
        ordered = self.op("Gather", [channels, positions], "states/ordered", axis=0)
        return self.op("Transpose", [ordered], "states/back", perm=[1, 0])
