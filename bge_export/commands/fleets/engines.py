"""Where the parts of a fleet are made: here, one after the other, or wherever another engine makes them."""

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from bge_export.commands.fleets.parts import Part, PartResult, make_part


class Engine(Protocol):
    """Makes parts. It is given all parts before the first result is asked for, the longest first."""

    def submit(self, part: Part) -> None:
        """Take a part."""

    def results(self) -> Iterator[PartResult]:
        """Yield the result of each part that was taken, as they come."""

    def close(self) -> None:
        """Stop what still runs."""


class InProcess:
    """Makes one part after the other in this process."""

    def __init__(self) -> None:
        self._waiting: deque[Part] = deque()

    def submit(self, part: Part) -> None:
        """Take a part."""
        self._waiting.append(part)

    def results(self) -> Iterator[PartResult]:
        """Yield the result of each part, in their order."""
        while self._waiting:
            part = self._waiting.popleft()
            yield PartResult.model_validate_json(make_part(part.model_dump_json()))

    def close(self) -> None:
        """Forget the parts that were not begun."""
        self._waiting.clear()
