"""How requests reach a page, and how what it found comes back; and what serves them."""

import queue
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

UNREAD_ANSWERS = 16
"""How many answers of a page may wait to be read: it owes one to a request."""


@dataclass(frozen=True)
class Channel:
    """What goes to one page, and what comes from it."""

    requests: "queue.Queue[Mapping[str, Any]]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[Mapping[str, Any]]" = field(default_factory=lambda: queue.Queue(UNREAD_ANSWERS))


class Content(Protocol):
    """What the loopback server gives to whoever shows its token.

    Attributes:
        token: the one-time token, the first part of every path.
        served: paths of the files that were fetched.
    """

    token: str
    served: list[str]

    def channel(self, page: str) -> Channel | None:
        """Return the channel of a page; None for one that did not greet."""

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Take in a page that says who it is."""

    def file_at(self, name: str) -> Path | None:
        """Return the file behind a path below the token; None where there is none."""
