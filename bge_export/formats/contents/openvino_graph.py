"""The operators of one OpenVINO model: which of its constants and operators its results depend on."""

from dataclasses import dataclass, field

from bge_export.formats.contents import Contents
from bge_export.formats.contents.reaching import reached_from

RESULTS = ("result", "assign")
"""Operators that a run is for, in lower case: what they do not depend on is not even loaded."""

SHAPES = ("shapeof",)
"""Operators that look at no value of their input, in lower case."""


@dataclass
class Layer:
    """An operator of the model itself, not of a body.

    Attributes:
        name: as `Contents.operators` has it.
        operator: its type in lower case.
        constant: element type and size of what it stores.
        reads: input -> the layer that it reads.
    """

    name: str
    operator: str
    constant: tuple[str, int] | None = None
    reads: dict[str, str] = field(default_factory=dict)


class Graph:
    """The operators of a model and what they read, entered in any order."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.reads: dict[str, dict[str, str]] = {}

    def add(self, number: str, layer: Layer) -> None:
        """Add an operator; raise ValueError if there is one of that number."""
        if number in self.layers:
            raise ValueError(f"two of its layers have the id {number}")

        self.layers[number] = layer
        layer.reads = self.reads.setdefault(number, {})

    def join(self, source: str, reader: str, port: str) -> None:
        """Let an operator read another one; raise ValueError if that input reads one already."""
        if port in self.reads.setdefault(reader, {}):
            raise ValueError(f"two edges go to the port {port} of the layer {reader}")

        self.reads[reader][port] = source

    def count(self, found: Contents) -> None:
        """Add the constants that the results depend on, and mark the other operators as idle."""
        read = {key: () if one.operator in SHAPES else one.reads.values() for key, one in self.layers.items()}
        results = [key for key, one in self.layers.items() if one.operator in RESULTS]
        reached = reached_from(results, read)
        found.idle.update(layer.name for key, layer in self.layers.items() if key not in reached)

        used = {key: layer for key, layer in self.layers.items() if key in reached}
        edges = [(one, port, source) for one in used.values() for port, source in one.reads.items()]
        tables = {source for one, port, source in edges if (one.operator, port) == ("gather", "0")}
        tables -= {source for one, port, source in edges if (one.operator, port) != ("gather", "0")}

        for key, layer in used.items():
            if layer.constant is not None:
                kind, size = layer.constant
                found.weights[kind] += size
                found.tables[kind] += size if key in tables else 0
