"""Interfaces between the loopback server and its pages: a page's queues, and the content that is served."""

import queue
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

UNREAD_ANSWERS = 16
"""Maximum number of unread answers of a page; it owes one answer per request."""


@dataclass(frozen=True)
class Channel:
    """The two queues of one page: requests to it, and answers from it."""

    requests: "queue.Queue[Mapping[str, Any]]" = field(default_factory=queue.Queue)
    answers: "queue.Queue[Mapping[str, Any]]" = field(default_factory=lambda: queue.Queue(UNREAD_ANSWERS))


class Content(Protocol):
    """The content that the loopback server gives to clients that present its token.

    Attributes:
        token: the one-time token, which is the first part of every path.
        served: paths of the files that were fetched.
    """

    token: str
    served: list[str]

    def channel(self, page: str) -> Channel | None:
        """Return the channel of a page; None if it has not sent a greeting."""

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Register a page that identifies itself."""

    def file_at(self, name: str) -> Path | None:
        """Return the file behind a path below the token; None if no such file exists."""
