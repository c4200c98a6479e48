"""Reads what an OpenVINO IR model holds, from its XML alone; its weights lie in the `.bin` of the same name."""

import math
from pathlib import Path
from xml.parsers import expat

from bge_export.bundle.contents._facts import Contents
from bge_export.files.regular import GRAPH_BYTES, open_regular

TYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
    "boolean": "bool",
}
"""Element type of OpenVINO -> the name that numpy uses; others keep their own."""


def contents(path: Path) -> Contents:
    """Return what a model holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an IR model.
    """
    found = Contents(files={path.with_suffix(".bin").name})
    parser = expat.ParserCreate()
    constant = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal constant
        if name == "layer":
            found.operators[attributes.get("type", "")] += 1
            constant = attributes.get("type") == "Const"
        elif name == "data" and constant:
            shape = [int(axis) for axis in attributes.get("shape", "").split(",") if axis.strip()]
            kind = attributes.get("element_type", "")
            found.weights[TYPES.get(kind, kind)] += math.prod(shape)

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which no IR model does")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse  # entities could unpack to any size

    try:
        with open_regular(path, GRAPH_BYTES) as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error

    if not found.operators:
        raise ValueError("it has no layers")
    return found
