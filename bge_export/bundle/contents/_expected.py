"""What a file of each precision must hold, derived from what the package's exporters write.

The shares have room for small checkpoints, whose biases and normalisations weigh more, and for the parts of a graph
that stay float32 on purpose (docs/decisions/0006). A file of another precision is far from them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bge_export.bundle.contents._facts import Contents
from bge_export.contracts import Artifact
from bge_export.precision import precision_names, precisions

FLOATS = ("float64", "float32", "float16", "bfloat16")
WEIGHTS = (*FLOATS, "int8", "uint8")
"""Types that weights may have; other integers are indices, sizes and biases."""

MODEL_FILES: Mapping[str, str] = {
    f"{format_name}-{one.name}": file for one in precisions() for format_name, file in one.files.items()
}
"""Target -> its model file, without those of TorchScript."""

TORCHSCRIPT_FILES = ("torchscript/model.pt", "torchscript/traced_pytorch_model.pt")
"""Names of the TorchScript exporter's files. It is not imported, because it imports torch."""


@dataclass(frozen=True)
class Expected:
    """What a precision must hold.

    Attributes:
        holder: the element type, or the operator with its bits, that holds the weights.
        share: the least share of the weights that it holds. A weight that is read by index, such as a table of
            positions, counts only if `tables` is true.
        tables: see `share`.
        operators: format -> an operator without which the file would not be of this precision.
        rest: the type of other floats (scales, biases), with the least share of them that has it.
    """

    holder: str
    share: float
    tables: bool = False
    operators: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, float] | None = None


EXPECTED: Mapping[str, Expected] = {
    "fp32": Expected("float32", 0.99, tables=True),
    "fp16": Expected("float16", 0.9, tables=True),
    "int8": Expected("int8", 0.5, operators={"onnx": "QuantizeLinear", "openvino": "FakeQuantize"}),
    "int8-dynamic": Expected("int8", 0.5, operators={"onnx": "DynamicQuantizeLinear"}),
    "uint8": Expected("uint8", 0.5, operators={"onnx": "DynamicQuantizeLinear"}),
    "q4": Expected("MatMulNBits 4", 0.75, rest=("float32", 0.1)),
    "q4f16": Expected("MatMulNBits 4", 0.75, rest=("float16", 0.9)),
    "bnb4": Expected("MatMulBnb4 4", 0.75, rest=("float32", 0.1)),
}
"""Precision -> what a file of it must hold. The scales of a 4-bit table are float16 in every 4-bit file."""


def differences(artifact: Artifact, found: Contents) -> Iterator[tuple[str, str]]:
    """Yield each way in which a file is not of its target: what it holds, and what it must hold."""
    target = str(artifact.target)
    names = TORCHSCRIPT_FILES if artifact.target.format == "torchscript" else (MODEL_FILES.get(target, ""),)
    if artifact.model not in names:
        yield f"{artifact.model} is called {target}", " or ".join(filter(None, names)) or "a target of bge-export"

    expected = EXPECTED.get(artifact.target.precision)
    if expected is None and artifact.target.precision in precision_names():
        return  # a precision that was just added; the suite asks for its row in `EXPECTED`
    if expected is None:
        yield f"{artifact.model} has the precision {artifact.target.precision}", f"one of {', '.join(EXPECTED)}"
        return

    held = weights_of(found, tables=expected.tables)
    if (has := _share(held, expected.holder)) < expected.share:
        yield f"{artifact.model} holds {_shown(held)}", f"at least {expected.share:.0%} in {expected.holder}"

    operator = expected.operators.get(artifact.target.format)
    if operator is not None and not found.operators[operator]:
        yield f"{artifact.model} has no {operator}", f"one, since its weights are {expected.holder}"

    floats = Counter({kind: held[kind] for kind in FLOATS})
    if expected.rest is not None and has and _share(floats, expected.rest[0]) < expected.rest[1]:
        kind, least = expected.rest
        yield f"{artifact.model} holds {_shown(held)}", f"at least {least:.0%} of its other floats in {kind}"


def weights_of(found: Contents, *, tables: bool) -> Counter[str]:
    """Return element type or packing operator -> the number of weights.

    Args:
        found: what the file holds.
        tables: whether tables that are read by index count.
    """
    held = Counter({kind: found.weights[kind] - (0 if tables else found.tables[kind]) for kind in WEIGHTS})

    # Two 4-bit weights in a byte: the operators say how many weights these bytes are.
    packed_bytes = sum(count * int(name.rpartition(" ")[2]) // 8 for name, count in found.packed.items())
    held["uint8"] = max(0, held["uint8"] - packed_bytes)
    return held + found.packed


def _share(held: Mapping[str, int], holder: str) -> float:
    return held.get(holder, 0) / max(1, sum(held.values()))


def _shown(held: Mapping[str, int]) -> str:
    """Return what holds the weights, largest first, in words."""
    parts = [
        f"{_share(held, name):.1%} of its weights in {name}" for name, count in Counter(held).most_common(3) if count
    ]
    return ", ".join(parts) or "no weights"
