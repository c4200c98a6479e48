"""Arranges a float32 graph as ONNX Runtime runs it fastest: an encoder on rows of tokens, sequence-major.

Chosen by measurement (docs/decisions/0029):

    [S*B, width], `MatMul` and `Add`   in two dimensions, ONNX Runtime makes `Gemm` of both, and does not fuse the
                                       residual's `Add` and the normalisation into `SkipLayerNormalization`, which takes
                                       four times as long on a CPU. Conversions to other precisions know `MatMul`
    sequence-major                     both products of attention read heads and keys where they lie, so that four of
                                       five transpositions of a layer fall away
    scale of the scores                is part of the queries' weights and bias
"""

import onnx
import onnx_ir as ir

from bge_export.encoder.encoder import Encoder, Layer, Linear
from bge_export.encoder.folds import fold_attention
from bge_export.encoder.frame import Frame
from bge_export.encoder.matching import UnknownGraph
from bge_export.encoder.reading import BY_SEQUENCE, read_encoder
from bge_export.graph.tidy import tidy
from bge_export.graph.weights import Weights, put_back, set_aside


def arrange_floats(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in that arrangement, with a type on every value; another architecture's graph is returned as is.

    Args:
        model: a tidy float32 graph; it is not modified.
    """
    try:
        encoder = read_encoder(model)
    except UnknownGraph:
        return model

    writer = _Writer(encoder.prelude, by_sequence=True)
    light = writer.write(encoder)
    return put_back(tidy(light), writer.weights)


class _Writer(Frame):
    """Appends an encoder's layers to its prelude, and keeps the weights beside the graph that it writes."""

    weights: Weights

    def write(self, encoder: Encoder) -> onnx.ModelProto:
        state = self.start(encoder.embedding_norm)
        for layer_index, layer in enumerate(encoder.layers):
            self.prefix = f"layer.{layer_index}/"
            state = self._layer(fold_attention(layer), state)

        self.prefix = ""
        self.weights = set_aside(self.graph)
        return self.finish(state, len(encoder.embedding_norm.gamma), encoder.tail)

    def _layer(self, layer: Layer, x: ir.Value) -> ir.Value:
        output = self._linear(self._attention(layer, x), layer.output, "output")
        middle = self.norm(self.op("Add", [output, x], "attention_residual"), layer.attention_norm, "attention_norm")

        activated = self.activation(self._linear(middle, layer.up, "up"), layer.activation)
        down = self._linear(activated, layer.down, "down")
        added = self.op("Add", [down, middle], "feedforward_residual")
        return self.norm(added, layer.feedforward_norm, "feedforward_norm")

    def _attention(self, layer: Layer, x: ir.Value) -> ir.Value:
        hidden = layer.value.weight.shape[1]

        def heads(part: Linear, name: str, perm: tuple[int, ...] = BY_SEQUENCE.heads) -> ir.Value:
            return self.split_rows(self._linear(x, part, name), layer.heads, hidden // layer.heads, name, perm)

        query, value = heads(layer.query, "query"), heads(layer.value, "value")
        scores = self.op("MatMul", [query, heads(layer.key, "key", BY_SEQUENCE.keys)], "scores")
        masked = self.op("Add", [scores, self.bias()], "scores/masked")
        mixed = self.op("MatMul", [self.op("Softmax", [masked], "probabilities", axis=-1), value], "mixed")
        return self.together(mixed, hidden, BY_SEQUENCE.together)

    def _linear(self, x: ir.Value, layer: Linear, name: str) -> ir.Value:
        product = self.op("MatMul", [x, self.floats(layer.weight, f"{name}.weight")], f"{name}/product")
        return (
            product if layer.bias is None else self.op("Add", [product, self.floats(layer.bias, f"{name}.bias")], name)
        )
