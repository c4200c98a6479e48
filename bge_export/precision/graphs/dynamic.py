"""Converts float32 graphs to 8 bits with onnxruntime's dynamic quantization: per channel, ranges from every batch.

Most published `model_int8.onnx` files are made this way; it is provided for comparison and for clients that request
these names. `DynamicQuantizeLinear` uses one range for the whole batch, including padding, so a text's vector depends
on the other texts in its batch (docs/decisions/0015).
"""

import tempfile
from pathlib import Path

import onnx


def quantize(model: onnx.ModelProto, *, signed: bool) -> onnx.ModelProto:
    """Round the weights, and the embedding table, to 8 bits; change the graph and return the result.

    Products of signed 8-bit weights saturate on x86 processors without VNNI, so signed weights have a range of 7 bits,
    which gives the same vectors on all processors.

    Args:
        model: the float32 graph.
        signed: whether weights become int8 rather than uint8.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Otherwise onnxruntime logs a request for shape inference, which is already done.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            per_channel=True,
            reduce_range=signed,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        quantized = onnx.load(path)

    del quantized.metadata_props[:]
    return quantized
