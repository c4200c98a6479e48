"""Reads what an OpenVINO IR model holds, from its XML alone; its weights lie in the `.bin` of the same name."""

from pathlib import Path
from xml.parsers import expat

from bge_export.files.regular import GRAPH_BYTES, open_regular
from bge_export.formats.contents import Contents, size_of

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

LAYER = ("net", "layers", "layer")
EDGE = ("net", "edges", "edge")
"""Where a model has its operators, and what they read."""

BODIES = frozenset({"body", "then_body", "else_body"})
"""Elements of control flow that have operators of their own."""


def contents(path: Path) -> Contents:
    """Return what a model holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an IR model.
    """
    found = Contents(files={path.with_suffix(".bin").name})
    reader = _Reader(found)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = _refuse_document_type

    try:
        with open_regular(path, GRAPH_BYTES) as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error

    reader.tables()
    if not found.operators:
        raise ValueError("it has no layers")
    return found


class _Reader:
    """Takes the elements of one file in order; edges follow the layers."""

    def __init__(self, found: Contents) -> None:
        self.found = found
        self.path: list[str] = []
        self.layer, self.operator = "", ""
        self.constants: dict[str, tuple[str, int]] = {}
        self.gathers: set[str] = set()
        self.read: dict[str, bool] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the start of an element.

        Raises:
            ValueError: it has a namespace, which OpenVINO does not look at, so that it would read another element.
        """
        if ":" in name or any(":" in attribute or attribute.startswith("xmlns") for attribute in attributes):
            raise ValueError(f"its element {name} has a namespace, which no IR model has")

        self.path.append(name)
        where = tuple(self.path)

        if name == "layer":
            self._layer(attributes, where)

        elif where == (*LAYER, "data") and self.operator.casefold() == "const":
            size = size_of([int(axis) for axis in attributes.get("shape", "").split(",") if axis.strip()])
            kind = attributes.get("element_type", "")
            self.constants[self.layer] = TYPES.get(kind, kind), size
            self.found.weights[TYPES.get(kind, kind)] += size

        elif where == EDGE:
            by_index = attributes.get("to-layer") in self.gathers and attributes.get("to-port") == "0"
            source = attributes.get("from-layer", "")
            self.read[source] = by_index and self.read.get(source, True)

    def _layer(self, attributes: dict[str, str], where: tuple[str, ...]) -> None:
        """Take an operator; one of a body is listed, but has no weights that count.

        Raises:
            ValueError: it lies where OpenVINO reads none.
        """
        if where != LAYER and not BODIES & set(where):
            raise ValueError(f"it has an operator in {'/'.join(where[:-1])}, where OpenVINO reads none")

        operator = attributes.get("type", "")
        self.found.operators[_name(operator, attributes.get("version", ""))] += 1

        self.layer, self.operator = (attributes.get("id", ""), operator) if where == LAYER else ("", "")
        if self.operator.casefold() == "gather":
            self.gathers.add(self.layer)

    def end(self, _name: str) -> None:
        """Take the end of an element."""
        self.path.pop()

    def tables(self) -> None:
        """Add the constants that are read by index, and by nothing else, to the tables."""
        for layer, by_index in self.read.items():
            if by_index and layer in self.constants:
                kind, size = self.constants[layer]
                self.found.tables[kind] += size


def _name(operator: str, version: str) -> str:
    """Return the name of an operator, with the set that it is of if that is not one of OpenVINO's own."""
    return operator if version.startswith("opset") else f"{version or 'no opset'}::{operator}"


def _refuse_document_type(*_: object) -> None:
    """Raise ValueError: entities that a document type declares could unpack to any size."""
    raise ValueError("it declares a document type, which no IR model does")
