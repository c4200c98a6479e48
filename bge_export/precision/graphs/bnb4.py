"""Converts float32 weights to 4-bit NormalFloat (NF4) of bitsandbytes; all arithmetic stays float32.

onnxruntime's quantizer writes `com.microsoft.MatMulBnb4` nodes. ONNX Runtime unpacks their weights to float32 for every
product, so the file is smaller but not faster. Transformers.js from version 3 calls this precision `bnb4`; OpenVINO
does not support the operator.
"""

import onnx

from bge_export.precision.graphs.q4_table import pack_table

BLOCK = 64
"""Weights per scale: the only block size of bitsandbytes itself."""


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert constant matrices to NF4 and the token embeddings as in `q4`; change the graph in place and return it."""
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    quantizer = MatMulBnb4Quantizer(model, MatMulBnb4Quantizer.NF4, BLOCK)
    quantizer.process()
    graph = model.graph

    # The quantizer writes a weight once per product: keep one of each that layers share.
    once = {tensor.name: tensor for tensor in graph.initializer}
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in once.values()]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    pack_table(graph)

    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)

    return model
