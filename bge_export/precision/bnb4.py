"""float32 to 4 bits of NormalFloat (NF4), as bitsandbytes has it; all arithmetic stays float32.

`com.microsoft.MatMulBnb4`, from onnxruntime's own quantizer: ONNX Runtime unpacks the weights to float32 for every
product, so that the file is small and no faster. Transformers.js from version 3 on calls it `bnb4`; OpenVINO has no
such operator.
"""

import onnx

from bge_export.precision.q4_table import pack_table

BLOCK = 64
"""Weights that share a scale: the only size that bitsandbytes itself has."""


def convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph, which is changed, with constant matrices in NF4 and the token embeddings as `q4` has them."""
    from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer

    quantizer = MatMulBnb4Quantizer(model, MatMulBnb4Quantizer.NF4, BLOCK)
    quantizer.process()
    graph = model.graph
    once = {tensor.name: tensor for tensor in graph.initializer}  # layers that share weights have written them anew
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in once.values()]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    pack_table(graph)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return model
