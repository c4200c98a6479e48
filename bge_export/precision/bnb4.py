"""The precision bnb4: 4-bit NormalFloat of bitsandbytes."""

from typing import TYPE_CHECKING

from bge_export.precision import Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint

PRECISION = Precision(
    "bnb4",
    bits=4,
    of="fp32",
    help="4-bit NormalFloat of bitsandbytes; float32 arithmetic",
    holds=Holds("MatMulBnb4 4", 0.75, rest=("float32", 0.1)),
    table=Step(4, "block"),
    files={"onnx": "onnx/model_bnb4.onnx"},
    client_dtype="bnb4",
    lacked_by=("openvino",),
)


def convert(model: "onnx.ModelProto", _checkpoint: "Checkpoint") -> "onnx.ModelProto":
    """Return the float32 graph with weights in NF4."""
    from bge_export.precision.graphs import bnb4

    return bnb4.convert(model)
