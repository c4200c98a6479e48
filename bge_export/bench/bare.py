"""Reads inputs, outputs, weight precision and required files from an ONNX or OpenVINO file without a manifest."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bge_export.errors import ArtifactError, MissingLibrary

SHARE = 0.05
"""Smallest share of all weights at which a type counts. Scales, biases and normalisations stay wide in any file."""

ONNX_PRECISIONS: Mapping[str, str] = {
    "FLOAT": "fp32",
    "FLOAT16": "fp16",
    "BFLOAT16": "bf16",
    "INT8": "int8",
    "UINT8": "int8",
    "INT4": "int4",
    "UINT4": "int4",
}
OPENVINO_PRECISIONS: Mapping[str, str] = {
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
    "i8": "int8",
    "u8": "int8",
    "i4": "int4",
    "u4": "int4",
}
NARROWEST_FIRST = ("int4", "int8", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class BareFile:
    """A model file without a manifest; `files` are relative to its folder, the model file first."""

    precision: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    files: tuple[str, ...]


def read_onnx(path: Path) -> BareFile:
    """Read an ONNX file; its external data is listed but not read.

    Raises:
        ArtifactError: the file is not a valid ONNX file.
        MissingLibrary: onnx is not installed.
    """
    try:
        import onnx

        from bge_export.files.onnx_reader import load_graph
    except ImportError as error:
        raise MissingLibrary("onnx", "inspect", "timing an ONNX file that bge-export did not write") from error

    try:
        graph = load_graph(path).graph
    except Exception as error:
        raise ArtifactError(f"{path} is not a valid ONNX file: {error}. Fetch it again.") from error

    # Some exporters store weights in Constant nodes rather than in initializers.
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    elements: Counter[str] = Counter()
    data: dict[str, None] = {}  # an ordered set of file names
    for tensor in (*graph.initializer, *constants):
        elements[ONNX_PRECISIONS.get(onnx.TensorProto.DataType.Name(tensor.data_type), "")] += math.prod(tensor.dims)
        data |= {entry.value: None for entry in tensor.external_data if entry.key == "location"}

    weights = {tensor.name for tensor in graph.initializer}  # IR 3 lists weights among the inputs
    return BareFile(
        precision=_precision(elements),
        inputs=tuple(value.name for value in graph.input if value.name not in weights),
        outputs=tuple(value.name for value in graph.output),
        files=(path.name, *data),
    )


def read_openvino(path: Path) -> BareFile:
    """Read an OpenVINO file.

    Raises:
        ArtifactError: the file is not a valid OpenVINO file, or its weights are missing.
        MissingLibrary: openvino is not installed.
    """
    try:
        from bge_export.files.openvino_reader import load_model
    except ImportError as error:
        raise MissingLibrary("openvino", "openvino", "timing OpenVINO files") from error

    try:
        model = load_model(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Fetch it again.") from error
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ArtifactError(f"{path} is not an OpenVINO model: {lines[-1].rstrip(' .!')}. Fetch it again.") from error

    elements: Counter[str] = Counter()
    for node in model.get_ops():
        if node.get_type_name() == "Constant":
            kind = OPENVINO_PRECISIONS.get(node.get_element_type().get_type_name(), "")
            elements[kind] += math.prod(node.get_output_shape(0))

    return BareFile(
        precision=_precision(elements),
        inputs=tuple(port.get_any_name() for port in model.inputs),
        outputs=tuple(port.get_any_name() for port in model.outputs),
        files=(path.name, path.with_suffix(".bin").name),
    )


def _precision(elements: Counter[str]) -> str:
    """Return the narrowest type that holds at least `SHARE` of the weights; `unknown` if no known type does."""
    del elements[""]
    needed = SHARE * elements.total()
    return next((kind for kind in NARROWEST_FIRST if elements[kind] > 0 and elements[kind] >= needed), "unknown")
