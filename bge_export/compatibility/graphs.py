"""Static checks of an ONNX file: everything that keeps a client from loading it or from computing correct values."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.compatibility.findings import Finding
from bge_export.compatibility.targets import CONTRIB, TargetFacts
from bge_export.formats.onnx import graph_of

if TYPE_CHECKING:
    import onnx

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
STANDARD = ("", "ai.onnx")


def read_graph(path: Path) -> "onnx.ModelProto":
    """Return an ONNX file without its external data.

    Raises:
        ArtifactError: it is not a valid ONNX file.
        MissingLibrary: onnx is not installed.
    """
    return graph_of(path, "looking into ONNX files", "Export it again.")


def check_graph(
    model: "onnx.ModelProto", path: Path, facts: TargetFacts, config: dict[str, object], answer: str
) -> list[Finding]:
    """Return every reason why a file does not run correctly.

    Args:
        model: the file's graph, without external data.
        path: the file.
        facts: the client and the host.
        config: `transformers.js_config` of the folder.
        answer: the output that the pipeline of such a folder reads.
    """
    values = [*_inputs_and_outputs(model, answer), *_shapes(model)]
    return [*_versions(model, facts), *_operators(model, facts), *values, *_external(model, path, facts, config)]


def _opset(model: "onnx.ModelProto") -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=0)


def _versions(model: "onnx.ModelProto", facts: TargetFacts) -> Iterator[Finding]:
    import onnx

    opset = _opset(model)
    if not 0 < opset <= facts.opset:
        yield Finding("opset", f"opset {opset}", f"at most {facts.opset}")

    if model.ir_version > facts.ir:
        yield Finding("ir", f"IR version {model.ir_version}", f"at most {facts.ir}")

    lowest, highest = facts.fp16_opsets
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if half and not lowest <= opset <= highest:
        yield Finding("fp16-opset", f"float16 at opset {opset}", f"{lowest} to {highest}, for its layer normalisation")


def _operators(model: "onnx.ModelProto", facts: TargetFacts) -> Iterator[Finding]:
    import onnx

    opset, seen = _opset(model), set()
    for node in model.graph.node:
        key = (node.domain, node.op_type)
        if key in seen:
            continue
        seen.add(key)

        if node.domain in STANDARD:
            known = onnx.defs.has(node.op_type, max_inclusive_version=opset) if opset else False
            if not known:
                yield Finding("operator", f"{node.op_type}, which opset {opset} does not have", "another operator")
            elif node.op_type in facts.missing:
                yield Finding("operator", f"{node.op_type}, which gives wrong values there", "a file without it")
        elif node.domain != CONTRIB or node.op_type not in facts.contrib:
            yield Finding("operator", f"{node.domain}:{node.op_type}, not seen to run there", "a file without it")

    for bits in sorted({_bits(node) for node in model.graph.node if node.op_type == "MatMulNBits"}):
        if bits not in facts.bits and "MatMulNBits" in facts.contrib:
            yield Finding("bits", f"MatMulNBits of {bits} bits", f"{' or '.join(map(str, sorted(facts.bits)))} bits")


def _bits(node: "onnx.NodeProto") -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "bits"), 4)


def _inputs_and_outputs(model: "onnx.ModelProto", answer: str) -> Iterator[Finding]:
    """Yield inputs that clients do not feed, outputs that they do not read, and types that they do not support."""
    import onnx

    kind = onnx.TensorProto.DataType.Name
    inputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}

    for name in sorted(set(inputs) - set(INPUTS)):
        yield Finding("input", f"the input {name!r}, which no client feeds", f"only {', '.join(INPUTS)}")
    for name in INPUTS[:2]:
        if name not in inputs:
            yield Finding("input", f"no input {name!r}", "it, as int64")
    for name, type_ in inputs.items():
        if type_ != onnx.TensorProto.INT64:
            yield Finding("input", f"{name} of {kind(type_).lower()}", "int64")

    outputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    if answer not in outputs:
        yield Finding("output", f"the outputs {', '.join(outputs)}", f"{answer}: pipelines read no other")
    for name, type_ in outputs.items():
        if type_ != onnx.TensorProto.FLOAT:
            yield Finding("output-type", f"{name} of {kind(type_).lower()}", "float: clients pool it as if it were")


def _shapes(model: "onnx.ModelProto") -> Iterator[Finding]:
    """Yield inputs of one size alone: clients send batches and texts of every size."""
    for value in model.graph.input:
        axes = [dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        baked_in = any(dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim)
        if value.name in INPUTS and baked_in:
            got = f"{value.name} [{', '.join(axes)}]"
            yield Finding("shape", got, "an open batch size and length: clients send texts of every length")


def _external(model: "onnx.ModelProto", path: Path, facts: TargetFacts, config: dict[str, object]) -> Iterator[Finding]:
    """Yield external data that the client does not find."""
    import onnx

    tensors = [one for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    locations = {entry.value for one in tensors for entry in one.external_data if entry.key == "location"}
    for location in sorted(locations):
        if not (path.parent / location).is_file():
            yield Finding("external-data", f"weights in {location!r}, which is missing", "that file beside the model")

    if not locations:
        return

    if not facts.external_data:
        yield Finding("external-data", f"weights in {', '.join(sorted(locations))}", "all weights in the file itself")
        return

    # The key says how many files there are; true is one. Clients number all but the first.
    count = _data_files(config, path.name)
    names = [f"{path.name}_data{f'_{number}' if number else ''}" for number in range(max(count, 1))]
    for location in sorted(locations - set(names)):
        needed = f"the name {names[0]!r}" if len(names) == 1 else f"one of the names {', '.join(names)}"
        yield Finding("external-data", f"weights in {location!r}", f"{needed}, which browsers look for")

    if not count:
        yield Finding(
            "external-data",
            "config.json without transformers.js_config.use_external_data_format",
            "that key: browsers fetch the weights only with it",
        )


def _data_files(config: dict[str, object], name: str) -> int:
    """Return how many external files clients fetch for a model file.

    The key may hold a number for each file, or one for all variants of `model`.
    """
    declared = config.get("use_external_data_format")
    if isinstance(declared, dict):
        declared = declared.get(name, declared.get("model", 0))
    return int(declared) if isinstance(declared, (bool, int)) else 0
