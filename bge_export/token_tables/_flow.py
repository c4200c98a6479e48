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
        kind: whether it "passes" ids on unchanged, "looks" rows up by them, only computes "shapes", or does "other".
        inputs: names of the values that it reads, without constants; for a lookup, what it looks up.
        outputs: names of its values.
    """

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def dominating_values(operations: Sequence[Operation], ids: str, outputs: Collection[str]) -> list[str]:
    """Return the values that depend on looked-up rows alone and dominate the ids' way to the outputs, first to last.

    Args:
        operations: the graph.
        ids: the name of the ids.
        outputs: the names of the graph's outputs.
    """
    live = _live(operations, outputs)
    passed, rows, marks, sizes = {ids}, set[str](), set[str](), set[str]()
    inside: list[Operation] = []
    used = set[str]()

    for one in operations:
        sources = set(one.inputs) - sizes
        if one.kind == "shapes" or not sources:
            sizes |= set(one.outputs)
        elif one.kind == "passes" and sources <= passed:
            passed |= set(one.outputs)
            inside.append(one)
        elif (one.kind == "looks" and sources <= passed) or sources <= rows:
            rows |= set(one.outputs)
            inside.append(one)
        elif one.kind != "looks" and sources <= passed | marks:
            marks |= set(one.outputs)
        elif live & set(one.outputs) and not (one.kind == "looks" and sources <= marks):
            # Here the ids or their rows meet something else. What only counts ids, as RoBERTa's positions do, may look
            # another table up, and nothing else.
            used |= sources & (rows | passed | marks)

    used |= set(outputs) & (rows | passed | marks)
    if not used or used & (passed | marks):
        return []

    candidates = [name for one in inside for name in one.outputs if name in rows]
    return [name for name in candidates if not used & _reached(inside, ids, without=name)]


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
