"""Enforces a size limit and a minimum speed on a transfer from the Hub."""

import socket
import time
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from bge_export.errors import HubError

if TYPE_CHECKING:
    from httpx2 import Response

STALL_SECONDS = 60.0
"""How long a transfer may run without `LEAST_BYTES` arriving; waiting for another process's lock does not count."""
LEAST_BYTES = 32 * 1024
OTHER_BYTES = 1 << 20
"""The size limit of an answer that is not the file itself (an error page, a redirect)."""


@dataclass
class Transfer:
    """Limits and progress of one call of huggingface_hub.

    Attributes:
        what: the model and file, for messages.
        most_bytes: the size that the Hub promised, or the limit for the file's kind if it promised none.
        answers: how many times those bytes may be sent, since broken transfers start again.
        upload_seconds: seconds that it may wait longer for an answer, while it uploads a file.
    """

    what: str
    most_bytes: int
    answers: int = 1
    upload_seconds: float = 0.0
    stopped: bool = False
    _received: int = 0
    _bytes_since_reset: int = 0
    _seconds_waited: float = 0.0
    _waiting_since: float | None = None
    _response: "Response | None" = None
    _lock: Lock = field(default_factory=Lock)

    def begin(self) -> None:
        """Record that a request is sent.

        Raises:
            HubError: the transfer was stopped or has stalled.
        """
        self.refuse_if_stopped_or_stalled()
        with self._lock:
            self._pause()
            self._waiting_since = time.monotonic()

    def end(self) -> None:
        """Record that an answer has ended."""
        with self._lock:
            self._pause()
            self._response = None

    def receive(self, size: int) -> None:
        """Record bytes that arrived.

        Raises:
            HubError: the transfer was stopped or has stalled, or more bytes arrived than were promised.
        """
        with self._lock:
            self._received += size
            self._bytes_since_reset += size
            if self._bytes_since_reset >= LEAST_BYTES:
                self._bytes_since_reset, self._seconds_waited, self._waiting_since = 0, 0.0, time.monotonic()

        self.refuse_if_stopped_or_stalled()
        if self._received > self.answers * (self.most_bytes + OTHER_BYTES):
            raise self.size_error()

    def refuse_if_stopped_or_stalled(self) -> None:
        """Raise HubError if the transfer was stopped or has stalled."""
        if self.stopped or self.is_stalled():
            raise self.stall_error()

    def is_stalled(self) -> bool:
        """Return whether fewer than `LEAST_BYTES` arrived in `STALL_SECONDS` of waiting for the network."""
        with self._lock:
            running = 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since
            return self._seconds_waited + running > STALL_SECONDS + self.upload_seconds

    def watch(self, response: "Response") -> None:
        """Remember the answer whose connection is closed if the transfer is stopped."""
        with self._lock:
            self._response = response

    def stop(self) -> None:
        """End the transfer: its thread wakes up, and the library removes its temporary file."""
        with self._lock:
            self.stopped = True
            stream = self._response.extensions.get("network_stream") if self._response is not None else None

        # Shutting the socket down wakes the thread, which may be blocked in a read.
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the connection is already closed

    def stall_error(self) -> HubError:
        """Return the error for a stalled transfer."""
        seconds = STALL_SECONDS + self.upload_seconds
        return HubError(
            f"{self.what}: the transfer stalled: less than {LEAST_BYTES // 1024} KiB came in {seconds:.0f} seconds. "
            "Check the network, HF_ENDPOINT and the proxy, and run the command again."
        )

    def size_error(self) -> HubError:
        """Return the error for an answer that exceeds its size limit."""
        return HubError(
            f"{self.what}: the Hub sends more than the {self.most_bytes} bytes it may, so the transfer was stopped. "
            "A proxy or mirror changes the file: check HF_ENDPOINT."
        )

    def _pause(self) -> None:
        if self._waiting_since is not None:
            self._seconds_waited += time.monotonic() - self._waiting_since
        self._waiting_since = None
