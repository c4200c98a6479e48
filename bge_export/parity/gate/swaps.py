"""Every "no" about vectors that were given to the wrong texts, however near those texts are to each other."""

from collections.abc import Iterator

from bge_export.parity.figures import excerpt
from bge_export.parity.gate.verdict import Failure, failure
from bge_export.parity.report import Lane


def swap_failures(lane: Lane) -> Iterator[Failure]:
    """Yield each text of a circle of texts in which each has the vector of the next.

    The limits of rounded weights are wide enough for texts that are close to each other to change places. Rounding may
    bring a vector nearer to another text's reference too, but it moves close texts alike: it never moves two of them
    past each other, so nearest references lead in a circle only where vectors were given to the wrong texts.
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
