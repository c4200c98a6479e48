"""The precision int8-dynamic: dynamic quantization with signed weights, as most published files are made."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "int8-dynamic",
    bits=8,
    of="fp32",
    help="8 bits, signed, ranges from each batch: for comparison",
    holds=Holds("int8", 0.5, operators={"onnx": "DynamicQuantizeLinear"}),
    table=Step(8, "table"),
    files={"onnx": "onnx/model_int8.onnx"},
    client_dtype="int8",
)


def convert(model: "onnx.ModelProto", _checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the float32 graph with int8 weights of 7-bit range."""
    from bge_export.precision.graphs import dynamic

    return dynamic.int8(model)
