"""Static 8-bit quantization: reads an encoder from its graph, plans, rounds and writes it.

The exporters of ONNX and OpenVINO call `quantize` themselves, because it has options, and writes the arrangement that
their runtime runs fastest.
"""

from bge_export.precision import Holds, Precision, Step

PRECISION = Precision(
    "int8",
    bits=8,
    of="fp32",
    help="8 bits with constant ranges, calibrated: one vector a text in every batch",
    holds=Holds("int8", 0.5, operators={"onnx": "QuantizeLinear", "openvino": "FakeQuantize"}),
    table=Step(8, "row"),
    files={"onnx": "onnx/model_quantized.onnx", "openvino": "openvino/openvino_model_qint8_quantized.xml"},
    client_dtype="q8",
)
