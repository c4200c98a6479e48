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

import onnx
import onnx_ir as ir

from bge_export.precision.int8.round.quantized import (
    InputQuantization,
    QuantizedEncoder,
    QuantizedLayer,
    QuantizedLinear,
)
from bge_export.precision.int8.write.attention import Attention
from bge_export.precision.int8.write.tables import round_tables

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
        state = self.start(self.encoder.embedding_norm)
        for layer_index, layer in enumerate(self.encoder.layers):
            self.prefix = f"layer.{layer_index}/"
            last = cls_only and layer_index == len(self.encoder.layers) - 1

            attended = self.first_attention(layer, state) if last else self.attention(layer, state)
            state = self.first(state, "first") if last else state
            state = self.rest_of_layer(layer, state, attended, only_first=last)

        self.prefix = ""
        hidden = len(self.encoder.embedding_norm.gamma)
        return self.finish(state, hidden, self.encoder.tail, self.encoder.hidden_order, cls_only=cls_only)

    def tables(self) -> dict[ir.Value, ir.Value]:
        return round_tables(self.graph)

    def rest_of_layer(
        self, layer: QuantizedLayer, x: ir.Value, attended: ir.Value, *, only_first: bool = False
    ) -> ir.Value:
        def linear(value: ir.Value, quantization: InputQuantization, part: QuantizedLinear, name: str) -> ir.Value:
            scaled = self.scaled(value, quantization, f"{name}_input")
            return self.linear(self.parts(scaled, quantization, f"{name}_input", only_first=only_first), part, name)

        output = linear(attended, layer.output_quantization, layer.output, "output")
        middle = self.norm(self.op("Add", [output, x], "attention_residual"), layer.attention_norm, "attention_norm")

        inner = linear(middle, layer.up_quantization, layer.up, "up")
        activated = self.activation(inner, layer.activation)
        down = linear(activated, layer.down_quantization, layer.down, "down")

        added = self.op("Add", [down, middle], "feedforward_residual")
        return self.norm(added, layer.feedforward_norm, "feedforward_norm")
