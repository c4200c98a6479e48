"""Refusals of vectors that were given to the wrong texts, however similar those texts are."""

from collections.abc import Iterator

from bge_export.parity.figures import excerpt
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import Lane


def swap_failures(lane: Lane) -> Iterator[Failure]:
    """Yield a failure for each text of a cycle in which every vector is nearest to the reference of the next text.

    The limits of rounded weights are so wide that two similar texts could swap vectors and pass. Rounding may bring a
    vector nearer to another text's reference too, but it moves similar texts alike and never moves two of them past
    each other. The nearest references therefore form a cycle only if vectors were given to the wrong texts.
    """
    following = {
        row.id: row.nearest
        for row in lane.rows
        if row.nearest is not None and row.nearest != row.id and row.nearest_cosine is not None
    }
    texts = {row.id: row.text for row in lane.rows}

    for name in following:
        if _comes_back(name, following):
            other = str(following[name])
            got, needed = f"the vector of text {excerpt(other)!r}", f"that of {excerpt(name)!r}"
            yield failure("swapped-rows", got, needed, lane=lane.name, row=name, text=texts[name])


def _comes_back(name: str, following: dict[str, str]) -> bool:
    """Return whether following the nearest references leads from a text back to it."""
    seen: set[str] = set()
    current = following.get(name)

    while current is not None and current not in seen:
        if current == name:
            return True
        seen.add(current)
        current = following.get(current)

    return False
