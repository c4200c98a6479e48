"""float32 to 8 bits with ranges taken anew from every batch: onnxruntime's dynamic quantization, per channel.

It is what most published `model_int8.onnx` files hold, and here for comparison with them and for clients that ask for
these names. `DynamicQuantizeLinear` takes one range over the whole batch, padding included, so that a text's vector
depends on the texts beside it (docs/decisions/0015).
"""

import tempfile
from pathlib import Path

import onnx


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph, which is changed, with int8 weights of 7 bits' range and an int8 embedding table.

    Products of full int8 weights overflow on x86 processors without VNNI; 7 bits give the same vectors everywhere.
    """
    return _quantized(model, signed=True)


def uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph, which is changed, with uint8 weights and a uint8 embedding table."""
    return _quantized(model, signed=False)


def _quantized(model: onnx.ModelProto, *, signed: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Otherwise it asks on the console for a shape inference, which the graph has had.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model, path, per_channel=True, reduce_range=signed,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8, use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
        quantized = onnx.load(path)
    del quantized.metadata_props[:]
    return quantized
