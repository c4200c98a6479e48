"""One graph of an ONNX file: which of its stored weights and operators its outputs depend on."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bge_export.formats.contents import TRAINING, Contents, size_of
from bge_export.formats.contents.onnx_tensors import Tensor
from bge_export.formats.contents.reaching import reached_from

OWN_DOMAINS = ("", "ai.onnx")

PACKED = {"MatMulNBits": 4, "MatMulBnb4": 4}
"""Operators that unpack weights, and their bits if they do not say."""

CODES = 1
"""Index of the input that holds the packed weights."""

DECIDES = 2
"""Index of the input of Dropout that says whether it trains."""

SHAPES = ("Shape", "Size")
"""Operators that look at no value of their input."""


@dataclass
class Node:
    """What counts of a node.

    Attributes:
        operator, domain: its kind.
        inputs, outputs: names, "" for one that is left out.
        around: names that its bodies read, from the graph around them or from themselves.
        numbers: its attributes that are one integer.
        tensors: the tensors in its attributes.
        floats: the number of float32 values in its attributes besides.
        values: for each constant `value`, whether it is false.
    """

    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    around: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    floats: int = 0
    values: list[bool] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the name that `Contents.operators` gives it."""
        return self.operator if self.domain in OWN_DOMAINS else f"{self.domain}::{self.operator}"

    @property
    def reads(self) -> list[str]:
        """Return the names of the values that its results are computed from."""
        return [] if self.name in SHAPES else [*self.inputs, *self.around]


@dataclass
class Scope:
    """One graph or function; readers add to it.

    Attributes:
        nodes: its nodes.
        stored: name of an initializer -> its tensors; a sparse one has two.
        outputs: names of its results.
        false: name of a constant -> whether it is false.
    """

    nodes: list[Node] = field(default_factory=list)
    stored: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    false: dict[str, bool] = field(default_factory=dict)

    def store(self, name: str, tensors: Iterable[Tensor]) -> None:
        """Add an initializer.

        Raises:
            ValueError: there is one of that name, and runtimes do not agree which of the two counts.
        """
        if name in self.stored:
            raise ValueError(f"it stores the weight {name[:100]!r} twice")

        self.stored[name] = tuple(tensors)
        self._note(name, false=all(one.false for one in self.stored[name]))

    def add(self, node: Node) -> None:
        """Add a node."""
        self.nodes.append(node)
        for name in node.outputs if node.operator == "Constant" and node.values else ():
            self._note(name, false=all(node.values))

    def _note(self, name: str, *, false: bool) -> None:
        """Note a constant; one that is stored twice is false only if both are."""
        self.false[name] = false and self.false.get(name, True)

    def reads(self) -> Iterator[str]:
        """Yield the names that anything in it reads: those of the graph around it are among them."""
        yield from self.outputs
        for node in self.nodes:
            yield from (*node.inputs, *node.around)

    def list_operators(self, found: Contents) -> None:
        """Add every operator. A Dropout trains unless the input that decides is a constant that is false."""
        for node in self.nodes:
            decides = node.inputs[DECIDES : DECIDES + 1] if node.operator == "Dropout" else []
            trains = any(decides) and not self.false.get(decides[0], False)
            found.operators[node.name + (TRAINING if trains else "")] += 1

    def count(self, found: Contents) -> None:
        """Add the weights that the outputs depend on, and mark the operators that they do not depend on as idle.

        Raises:
            ValueError: two nodes make one value, or an operator unpacks more weights than its input stores.
        """
        reached = reached_from(self.outputs, {name: node.reads for name, node in self._makers().items()})
        used = [node for node in self.nodes if not reached.isdisjoint(node.outputs)]
        found.idle.update(node.name for node in self.nodes if reached.isdisjoint(node.outputs))

        held = {name: one for name, one in self.stored.items() if name in reached}
        for node in used:
            found.weights["float32"] += node.floats
            if node.tensors:
                held[node.outputs[0]] = (*held.get(node.outputs[0], ()), *node.tensors)

        for tensor in (one for tensors in held.values() for one in tensors):
            found.weights[tensor.kind] += tensor.size

        for name in _read_by_index(used):
            for tensor in held.get(name, ()):
                found.tables[tensor.kind] += tensor.size

        self._count_packed(used, found)

    def _makers(self) -> dict[str, Node]:
        """Return name of a value -> the node that makes it."""
        makers: dict[str, Node] = {}

        for node in self.nodes:
            for name in filter(None, node.outputs):
                if name in makers or name in self.stored:
                    raise ValueError(f"two nodes give the tensor {name[:100]!r}")
                makers[name] = node

        return makers

    def _count_packed(self, used: Iterable[Node], found: Contents) -> None:
        """Add the weights that operators unpack, those of one input once."""
        known = set()

        for node in used:
            codes = next(iter(node.inputs[CODES : CODES + 1]), "")
            if node.operator not in PACKED or codes in known:
                continue

            known.add(codes)
            bits = node.numbers.get("bits", PACKED[node.operator])
            weights = size_of([node.numbers.get("K", 0), node.numbers.get("N", 0)])
            stored = sum(one.size for one in self.stored.get(codes, ()) if one.kind == "uint8")
            if weights * bits > 8 * stored:
                raise ValueError(f"its {node.operator} would unpack more weights than it stores")

            found.packed[f"{node.operator} {bits}"] += weights


def _read_by_index(nodes: Iterable[Node]) -> set[str]:
    """Return the names of what is read by index and by nothing else: any weight has a Gather as easily as a product."""
    tables: set[str] = set()
    whole: set[str] = set()

    for node in nodes:
        by_index = node.operator == "Gather"
        tables |= set(node.inputs[:1]) if by_index else set()
        whole |= {*node.inputs[1:], *node.around} if by_index else {*node.inputs, *node.around}

    return tables - whole
