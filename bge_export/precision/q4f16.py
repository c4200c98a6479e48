"""The precision q4f16: the 4-bit weights of q4, with float16 arithmetic."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "q4f16",
    bits=4,
    of="q4",
    help="q4 with float16 arithmetic and scales",
    holds=Holds("MatMulNBits 4", 0.75, rest=("float16", 0.9)),
    table=Step(4, "block"),
    files={"onnx": "onnx/model_q4f16.onnx"},
    client_dtype="q4f16",
)


def convert(model: "onnx.ModelProto", checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the 4-bit graph in float16."""
    from bge_export.precision.graphs import q4

    return q4.half(model, checkpoint)
