"""The precision uint8: dynamic quantization with unsigned weights."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "uint8",
    bits=8,
    of="fp32",
    help="8 bits, unsigned, ranges from each batch: for comparison",
    holds=Holds("uint8", 0.5, operators={"onnx": "DynamicQuantizeLinear"}),
    table=Step(8, "table"),
    files={"onnx": "onnx/model_uint8.onnx"},
    client_dtype="uint8",
)


def convert(model: "onnx.ModelProto", _checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the float32 graph with uint8 weights."""
    from bge_export.precision.graphs import dynamic

    return dynamic.uint8(model)
