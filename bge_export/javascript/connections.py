"""HTTP connections of the loopback server: the token comes first, and every wait and every count has a limit.

Anyone who can reach the address can connect. So the server reads nothing after a request line that lacks the token, and
no stranger can hold a thread for ever or keep others out.
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
"""Maximum number of open connections. A browser opens six, and a page that waits for its turn holds one."""

TOKEN_SECONDS = 10.0
"""Time limit for a new connection to present the token."""

REQUEST_SECONDS = 120.0
"""Time limit for a connection with the token: for a request, for a chunk of an answer, and between requests."""

_log = logging.getLogger(__name__)


@dataclass
class Connection:
    """The state of an open connection.

    Attributes:
        until: the deadline by the monotonic clock, in seconds.
        known: whether it has presented the token.
    """

    until: float
    known: bool = False


class Server(ThreadingHTTPServer):
    """An HTTP server with one thread and one deadline per connection."""

    daemon_threads = True

    def __init__(self, loopback: Content, host: str, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen on a free port of an address; `handler` answers the requests.

        Raises:
            OSError: the address does not belong to this machine.
        """
        self.loopback = loopback
        self._open: dict[Any, Connection] = {}
        self._lock = threading.Lock()
        super().__init__((host, 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - socketserver's own
        """Accept a new connection; if the server is full, it replaces the oldest one without the token."""
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
        """Forget a connection and close it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def allow(self, request: object, more: float = 0.0) -> bool:
        """Give a connection with the token `REQUEST_SECONDS + more` from now; return whether it is still open.

        A connection that was ended before stays closed.
        """
        with self._lock:
            if request not in self._open:
                return False

            self._open[request] = Connection(time.monotonic() + REQUEST_SECONDS + more, known=True)
            return True

    def service_actions(self) -> None:
        """End the connections whose deadline has passed; the server loop calls this between accepting connections."""
        now = time.monotonic()
        with self._lock:
            over = [one for one, state in self._open.items() if state.until < now]
            for request in over:
                del self._open[request]

        for request in over:
            _end(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - socketserver's own
        """Print nothing: version 4 drops a connection after each check whether a file exists."""
        _log.debug("a request failed", exc_info=True)


def _end(request: socket.socket) -> None:
    """Shut a connection down, which wakes the thread that reads from it or writes to it."""
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed already
        return
