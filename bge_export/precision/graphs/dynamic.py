"""Converts float32 graphs to 8 bits with onnxruntime's dynamic quantization: per channel, ranges from every batch.

Most published `model_int8.onnx` files are made this way; it is provided for comparison and for clients that request
these names. `DynamicQuantizeLinear` uses one range for the whole batch, including padding, so a text's vector depends
on the other texts in its batch (docs/decisions/0015).
"""

import tempfile
from pathlib import Path

import onnx


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to int8 weights of 7-bit range and an int8 embedding table; change the graph and return the result.

    Products of 8-bit weights saturate on x86 processors without VNNI; 7 bits give the same vectors on all processors.
    """
    return _quantized(model, signed=True)


def uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert to uint8 weights and a uint8 embedding table; change the graph and return the result."""
    return _quantized(model, signed=False)


def _quantized(model: onnx.ModelProto, *, signed: bool) -> onnx.ModelProto:
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
