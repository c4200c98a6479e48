"""Reads ONNX files: external data, inputs and outputs, weights, operators."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.files.mistaken import refuse_mistaken
from bge_export.formats import Format, GraphFacts, ModelFile, narrowest
from bge_export.formats.contents.onnx import contents
from bge_export.saturation import facts_of

if TYPE_CHECKING:
    import onnx

PRECISIONS: Mapping[str, str] = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "INT8": "int8",
    "UINT8": "int8",
    "INT4": "int4",
    "UINT4": "int4",
}


def graph_of(path: Path, purpose: str, advice: str) -> "onnx.ModelProto":
    """Return an ONNX file without its external data.

    Args:
        path: the file.
        purpose: what needs it, for the message that a library is missing.
        advice: what to do about a broken file, as a sentence.

    Raises:
        ArtifactError: it is not a valid ONNX file.
        MissingLibrary: onnx is not installed.
    """
    try:
        from bge_export.files.onnx_reader import load_graph
    except ImportError as error:
        raise MissingLibrary("onnx", "inspect", purpose) from error

    try:
        refuse_mistaken(path)
        return load_graph(path)
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{path} is not a valid ONNX file: {error}. {advice}") from error


def read(path: Path) -> ModelFile:
    """Read an ONNX file; its external data is listed but not read.

    Raises:
        ArtifactError: the file is not a valid ONNX file.
        MissingLibrary: onnx is not installed.
    """
    graph = graph_of(path, "timing an ONNX file that bge-export did not write", "Fetch it again.").graph
    import onnx

    # Some exporters store weights in Constant nodes rather than in initializers.
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    elements: Counter[str] = Counter()
    data: dict[str, None] = {}  # an ordered set of file names
    for tensor in (*graph.initializer, *constants):
        elements[PRECISIONS.get(onnx.TensorProto.DataType.Name(tensor.data_type), "")] += math.prod(tensor.dims)
        data |= {entry.value: None for entry in tensor.external_data if entry.key == "location"}

    weights = {tensor.name for tensor in graph.initializer}  # IR 3 lists weights among the inputs
    return ModelFile(
        precision=narrowest(elements),
        inputs=tuple(value.name for value in graph.input if value.name not in weights),
        outputs=tuple(value.name for value in graph.output),
        files=(path.name, *data),
    )


def look(path: Path, name: str) -> GraphFacts:
    """Return the content of an ONNX file, checked by onnx.

    Raises:
        ArtifactError: the file is not a valid ONNX file.
        MissingLibrary: onnx is not installed.
    """
    model = graph_of(path, "looking into ONNX files", "Export it again.")
    import onnx

    _refuse_missing_data(path, model)
    try:
        # By its path: the checker looks for external data beside the file, otherwise in the working folder.
        onnx.checker.check_model(str(path.resolve()))
    except Exception as error:
        raise ArtifactError(f"{path} is not a valid ONNX file: {error}. Export it again.") from error

    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        weights[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += _tensor_bytes(tensor)

    return GraphFacts(
        path=name,
        size_bytes=path.stat().st_size,
        opset=", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import),
        ir_version=model.ir_version,
        producer=model.producer_name,
        inputs=tuple(_describe(value) for value in model.graph.input),
        outputs=tuple(_describe(value) for value in model.graph.output),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        weights=dict(weights.most_common()),
        external_data=any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer),
        pairs=facts_of(path, "onnx"),
    )


def _refuse_missing_data(path: Path, model: "onnx.ModelProto") -> None:
    """Raise ArtifactError if a file with external data is not there."""
    places = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    for place in sorted(places):
        if not (path.parent / place).is_file():
            raise ArtifactError(f"{path} keeps weights in {place!r}, which is missing beside it. Fetch that file too.")


def _tensor_bytes(tensor: "onnx.TensorProto") -> int:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return sum(int(entry.value) for entry in tensor.external_data if entry.key == "length")

    return len(tensor.raw_data) or int(onnx.numpy_helper.to_array(tensor).nbytes)


def _describe(value: "onnx.ValueInfoProto") -> str:
    """Return a value as `name: element type [axes]`."""
    import onnx

    kind = value.type.tensor_type
    axes = ", ".join(dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} [{axes}]"


FORMAT = Format(
    # External data of one file has one suffix; a number follows where it is in several files.
    suffixes=(".onnx", ".onnx_data*"),
    runtimes=("onnxruntime", "openvino"),
    read=read,
    look=look,
    contents=contents,
)
