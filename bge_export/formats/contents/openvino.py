"""Reads what an OpenVINO IR model holds, from its XML alone; its weights lie in the `.bin` of the same name."""

import re
from pathlib import Path
from xml.parsers import expat

from bge_export.files.regular import GRAPH_BYTES, open_regular
from bge_export.formats.contents import Contents, size_of
from bge_export.formats.contents.openvino_graph import Graph, Layer

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

LAYERS = ("net", "layers")
LAYER = (*LAYERS, "layer")
EDGES = ("net", "edges")
EDGE = (*EDGES, "edge")
"""Where a model has its operators, and what they read."""

ONCE = (LAYERS, EDGES, (*LAYER, "data"))
"""Elements of which OpenVINO reads the first one in each place, and no other."""

BODIES = frozenset({"body", "then_body", "else_body"})
"""Elements of control flow that have operators of their own."""

DEEPEST = 200
"""The deepest allowed nesting of elements; bodies of control flow take some, and exports have none."""

MOST_PARTS = 300_000
"""Most operators and edges; an encoder of 24 layers has about 10,000."""

NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")


def contents(path: Path) -> Contents:
    """Return what a model holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an IR model.
    """
    reader = _Reader(Contents(files={path.with_suffix(".bin").name}))
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.StartDoctypeDeclHandler = _refuse_document_type

    try:
        with open_regular(path, GRAPH_BYTES) as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise ValueError(str(error)) from error

    if not reader.found.operators:
        raise ValueError("it has no layers")
    reader.graph.count(reader.found)
    return reader.found


class _Reader:
    """Takes the elements of one file in order; `found` and `graph` take what they say."""

    def __init__(self, found: Contents) -> None:
        self.found = found
        self.path: list[str] = []
        self.seen: list[set[str]] = []
        self.graph = Graph()
        self.layer: Layer | None = None
        self.parts = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take the start of an element.

        Raises:
            ValueError: it has a namespace, which OpenVINO does not look at, so that it would read another element; or
                it is the second one where OpenVINO reads the first.
        """
        if ":" in name or any(":" in attribute or attribute.startswith("xmlns") for attribute in attributes):
            raise ValueError(f"its element {name} has a namespace, which no IR model has")

        self.path.append(name)
        if len(self.path) > DEEPEST:
            raise ValueError(f"its elements are nested deeper than {DEEPEST}")

        where = tuple(self.path) if len(self.path) <= len(LAYER) + 1 else ()
        if where in ONCE and name in self.seen[-1]:
            raise ValueError(f"it has two elements {'/'.join(where)} in one place, of which OpenVINO reads one")
        if where in ONCE:
            self.seen[-1].add(name)
        self.seen.append(set())

        if name == "layer":
            self._layer(attributes, where)
        elif where == (*LAYER, "data") and self.layer is not None and self.layer.operator == "const":
            size = size_of([int(axis) for axis in attributes.get("shape", "").split(",") if axis.strip()])
            kind = attributes.get("element_type", "")
            self.layer.constant = TYPES.get(kind, kind), size
        elif where == EDGE:
            self._count()
            self.graph.join(*(_number(attributes, key) for key in ("from-layer", "to-layer", "to-port")))

    def _layer(self, attributes: dict[str, str], where: tuple[str, ...]) -> None:
        """Take an operator; one of a body is listed, but has no weights that count.

        Raises:
            ValueError: it lies where OpenVINO reads none.
        """
        if where != LAYER and not BODIES & set(self.path):
            raise ValueError(f"it has an operator in {'/'.join(self.path[:-1])}, where OpenVINO reads none")

        operator = attributes.get("type", "")
        name = _name(operator, attributes.get("version", ""))
        self.found.operators[name] += 1
        self._count()

        self.layer = None
        if where == LAYER:
            self.layer = Layer(name, operator.casefold())
            self.graph.add(_number(attributes, "id"), self.layer)

    def end(self, _name: str) -> None:
        """Take the end of an element."""
        self.path.pop()
        self.seen.pop()

    def _count(self) -> None:
        """Count a part; raise ValueError if there are more than any model has."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS} operators and edges")


def _number(attributes: dict[str, str], key: str) -> str:
    """Return the number of a layer or an input, as OpenVINO writes it: readers do not agree about other spellings."""
    found = attributes.get(key, "")
    if not NUMBER.fullmatch(found):
        raise ValueError(f"it has the {key} {found[:50]!r}, no number that OpenVINO writes")
    return found


def _name(operator: str, version: str) -> str:
    """Return the name of an operator, with the set that it is of if that is not one of OpenVINO's own."""
    return operator if version.startswith("opset") else f"{version or 'no opset'}::{operator}"


def _refuse_document_type(*_: object) -> None:
    """Raise ValueError: entities that a document type declares could unpack to any size."""
    raise ValueError("it declares a document type, which no IR model does")
