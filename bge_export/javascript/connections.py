"""Connections to the loopback server: the token first, an end to every wait, and no more of anything than is needed.

Whoever reaches the address may connect, so nothing that a stranger sends is read beyond the line that lacks the token,
and none of them can hold a thread for ever or keep others out.
"""

import logging
import socket
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bge_export.javascript.channel import Content

CONNECTIONS = 256
"""How many are held at once. Browsers open six each, and a page that waits for its turn holds one."""

TOKEN_SECONDS = 10.0
"""How long a new connection may take to show the token."""

REQUEST_SECONDS = 120.0
"""How long one that has shown it may take for a request, for a piece of an answer, or between two requests."""

_log = logging.getLogger(__name__)


@dataclass
class Connection:
    """An open connection.

    Attributes:
        until: when it is ended, by the monotonic clock, in seconds.
        known: whether it has shown the token.
    """

    until: float
    known: bool = False


class Server(ThreadingHTTPServer):
    """A thread for each connection, and an end for each."""

    daemon_threads = True

    def __init__(self, loopback: Content, host: str, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen on a free port of an address; `handler` answers what comes on a connection.

        Raises:
            OSError: the address is not one of this machine's.
        """
        self.loopback = loopback
        self._open: dict[Any, Connection] = {}
        self._lock = threading.Lock()
        super().__init__((host, 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Take a new connection; where there are too many, the oldest stranger gives way."""
        with self._lock:
            full = len(self._open) >= CONNECTIONS
            stranger = next((one for one, state in self._open.items() if not state.known), None) if full else None
            taken = not full or stranger is not None
            if taken:
                self._open.pop(stranger, None)
                self._open[request] = Connection(time.monotonic() + TOKEN_SECONDS)

        if stranger is not None:
            _end(stranger)
        if taken:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Let go of a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def allow(self, request: object, more: float = 0.0) -> bool:
        """Let a connection that has shown the token last `REQUEST_SECONDS` from now, and more; return whether it does.

        One that was ended before stays so.
        """
        with self._lock:
            if request not in self._open:
                return False
            self._open[request] = Connection(time.monotonic() + REQUEST_SECONDS + more, known=True)
            return True

    def service_actions(self) -> None:
        """End the connections whose time is over; called in turns with accepting new ones."""
        now = time.monotonic()
        with self._lock:
            over = [one for one, state in self._open.items() if state.until < now]
            for request in over:
                del self._open[request]

        for request in over:
            _end(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's own
        """Print nothing: version 4 ends a connection after each look whether a file is there."""
        _log.debug("a request failed", exc_info=True)


def _end(request: socket.socket) -> None:
    """Wake whoever reads from a connection, or writes to it, with its end."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended
        return
