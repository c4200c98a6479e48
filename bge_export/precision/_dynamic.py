"""The precisions of dynamic quantization, which differ in the sign of their weights alone."""

from typing import TYPE_CHECKING

from bge_export.precision import Convert, Holds, Precision, Step

if TYPE_CHECKING:
    import onnx

    from bge_export.contracts import Checkpoint


def dynamic_precision(name: str, *, signed: bool) -> tuple[Precision, Convert]:
    """Return the precision with signed or unsigned weights, and what converts a float32 graph to it."""
    kind, sign = ("int8", "signed") if signed else ("uint8", "unsigned")

    def convert(model: "onnx.ModelProto", _checkpoint: "Checkpoint") -> "onnx.ModelProto":
        from bge_export.precision.graphs.dynamic import quantize

        return quantize(model, signed=signed)

    precision = Precision(
        name,
        bits=8,
        of="fp32",
        help=f"8 bits, {sign}, ranges from each batch: for comparison",
        holds=Holds(kind, 0.5, operators={"onnx": "DynamicQuantizeLinear"}),
        table=Step(8, "table"),
        files={"onnx": f"onnx/model_{kind}.onnx"},
        client_dtype=kind,
    )
    return precision, convert
