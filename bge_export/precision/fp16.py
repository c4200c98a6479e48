"""The precision fp16: float16 weights, in ONNX also float16 arithmetic."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "fp16",
    bits=16,
    of=None,
    help="float16: half the size",
    holds=Holds("float16", 0.9, tables=True),
    table=Step(11, "value"),
    files={"onnx": "onnx/model_fp16.onnx", "openvino": "openvino/openvino_model_fp16.xml"},
    client_dtype="fp16",
)


def convert(model: "onnx.ModelProto", _checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the float32 graph in float16."""
    from bge_export.precision.graphs import fp16

    return fp16.convert(model)
