"""Reads OpenVINO IR files: the weights beside the graph, inputs and outputs, element types."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bge_export.errors import ArtifactError, MissingLibrary
from bge_export.formats import Format, ModelFile, narrowest
from bge_export.formats.contents.openvino import contents

if TYPE_CHECKING:
    import openvino

PRECISIONS: Mapping[str, str] = {
    "f32": "fp32",
    "f16": "fp16",
    "bf16": "bf16",
    "i8": "int8",
    "u8": "int8",
    "i4": "int4",
    "u4": "int4",
}


def read(path: Path) -> ModelFile:
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
            kind = PRECISIONS.get(node.get_element_type().get_type_name(), "")
            elements[kind] += math.prod(node.get_output_shape(0))

    return ModelFile(
        precision=narrowest(elements),
        inputs=tuple(map(_name, model.inputs)),
        outputs=tuple(map(_name, model.outputs)),
        files=(path.name, path.with_suffix(".bin").name),
    )


def _name(port: "openvino.Output") -> str:
    """Return the name of an input or output; that of its node where it has none of its own."""
    return str(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


FORMAT = Format(suffixes=(".xml", ".bin"), runtimes=("openvino",), read=read, contents=contents)
