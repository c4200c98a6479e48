"""Finds what the outputs of a graph depend on; what nothing reads says nothing of what a file computes."""

from collections.abc import Collection, Iterable, Mapping


def reached_from(outputs: Iterable[str], read: Mapping[str, Collection[str]]) -> set[str]:
    """Return the names that outputs depend on, themselves among them.

    Args:
        outputs: the names to begin with.
        read: name of a value -> the names that it is computed from. One that is missing is computed from none.
    """
    reached = set(outputs)
    waiting = list(reached)

    while waiting:
        for name in read.get(waiting.pop(), ()):
            if name not in reached:
                reached.add(name)
                waiting.append(name)

    return reached
