"""The precision q4: 4-bit weights in blocks, rounded by GPTQ."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "q4",
    bits=4,
    of="fp32",
    help="4 bits in blocks, rounded by GPTQ; float32 arithmetic",
    holds=Holds("MatMulNBits 4", 0.75, rest=("float32", 0.1)),
    table=Step(4, "block"),
    files={"onnx": "onnx/model_q4.onnx"},
    client_dtype="q4",
)


def convert(model: "onnx.ModelProto", checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the float32 graph with 4-bit weights."""
    from bge_export.precision.graphs import q4

    return q4.convert(model, checkpoint)
