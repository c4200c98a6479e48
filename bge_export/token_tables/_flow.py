"""Finds the values of a graph through which all that token ids do must pass: one of them is the rows of the table.

A file could look up a right table beside the one that it uses. So a value counts only if the outputs depend on the ids
through it alone: it dominates, in the sense of flow graphs, every use of the ids.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """One node of a graph in topological order.

    Attributes:
        kind: "passes" hands ids or rows on as they are, "looks" looks rows up, "decodes" computes with each value of a
            row, "shapes" gives the shape of a value, "counts" gives a result whose shape depends on values, "other".
        inputs: names of the values that it reads, without constants; for a lookup, what it looks up.
        outputs: names of its values.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Ways:
    """How the ids reach the outputs.

    Attributes:
        rows: values that depend on looked-up rows alone and dominate the ids' way to the outputs, first to last.
        positions: values that another table gives by a count of ids, as RoBERTa's positions are.
    """

    rows: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()


def ways_of(operations: Sequence[Operation], ids: str, outputs: Collection[str]) -> Ways:
    """Return how the ids reach the outputs; no rows if they do so by several ways.

    Args:
        operations: the graph.
        ids: the name of the ids.
        outputs: the names of the graph's outputs.
    """
    live = _live(operations, outputs)
    passed, rows, marks, sizes = {ids}, set[str](), set[str](), set[str]()
    inside: list[Operation] = []
    used, positions = set[str](), list[str]()
    later: set[str] = set()

    for one in operations:
        # A model looks nothing up by what it computed from rows: that would be other rows again.
        if later & (set(one.inputs) - sizes):
            if one.kind == "looks" and live & set(one.outputs):
                return Ways()
            later |= set(one.outputs)

        sources = set(one.inputs) - sizes
        known = sources & (rows | passed | marks)
        sized = len(sources) < len(set(one.inputs))

        if (one.kind == "shapes" and not sources & marks) or not sources:
            sizes |= set(one.outputs)
        elif one.kind == "passes" and sources <= passed:
            passed |= set(one.outputs)
            inside.append(one)
        elif (one.kind == "looks" and sources <= passed) or (
            sources <= rows and (one.kind == "passes" or (one.kind == "decodes" and not sized))
        ):
            rows |= set(one.outputs)
            inside.append(one)
        elif one.kind in ("decodes", "other", "passes", "shapes") and sources <= passed | marks:
            marks |= set(one.outputs)
        elif one.kind == "looks" and sources <= marks:
            positions += [name for name in one.outputs if name in live]
        else:
            used |= known if live & set(one.outputs) else set()
            later |= set(one.outputs) if sources & rows else set()

    used |= set(outputs) & (rows | passed | marks)
    if not used or used & (passed | marks):
        return Ways()

    candidates = [name for one in inside for name in one.outputs if name in rows]
    return Ways(tuple(name for name in candidates if not used & _reached(inside, ids, without=name)), tuple(positions))


def _live(operations: Sequence[Operation], outputs: Collection[str]) -> set[str]:
    """Return the values that the outputs depend on."""
    live = set(outputs)
    for one in reversed(operations):
        if live & set(one.outputs):
            live |= set(one.inputs)
    return live


def _reached(operations: Sequence[Operation], ids: str, *, without: str) -> set[str]:
    """Return the values that the ids reach if one value is taken out."""
    readers: dict[str, list[Operation]] = defaultdict(list)
    for one in operations:
        for name in one.inputs:
            readers[name].append(one)

    reached, left = {ids}, [ids]
    while left:
        for one in readers[left.pop()]:
            new = set(one.outputs) - reached - {without}
            reached |= new
            left += new
    return reached
